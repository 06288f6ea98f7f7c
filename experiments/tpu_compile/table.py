"""Prints the tables of README.md from the JSON files beside it."""

import importlib
import json
import pathlib

_COLUMNS = {
  "config": lambda r: pathlib.Path(r["config"]).stem,
  "dtype": lambda r: r["dtype"],
  "slice": lambda r: r["topology"],
  "chips": lambda r: r["chips"],
  "images per chip": lambda r: r["images_per_chip"],
  "TFLOP per chip": lambda r: f"{r['flops_per_chip_per_step'] / 1e12:.3f}",
  "ratio to count by hand": lambda r: f"{r['flops_over_by_hand']:.3f}",
  "GB per chip": lambda r: f"{r['bytes_per_chip_per_step'] / 1e9:.1f}",
  "GiB of memory": lambda r: (
    f"{r['peak_memory_per_chip'] / 2**30:.1f} of "
    f"{r['memory_per_chip'] / 2**30:.0f}"
  ),
  "collectives (in loops)": lambda r: (
    f"{r['collectives_per_step']['count']} "
    f"({r['collectives_in_loops']['count']})"
  ),
  "bound, ms": lambda r: (
    f"{1000 * r['bound_seconds_per_step']:.1f} ({r['bound']})"
  ),
  "estimate, ms": lambda r: (
    f"{1000 * r['compiler_estimate']['seconds_per_step']:.1f}"
    if "compiler_estimate" in r
    else "-"
  ),
  "compile time, s": lambda r: f"{r['compile_seconds']:.0f}",
}
_HOURS = {
  "config": _COLUMNS["config"],
  "images per chip": _COLUMNS["images per chip"],
  "training steps": lambda r: f"{_num_steps(r):,}",
  "estimate of a step, ms": _COLUMNS["estimate, ms"],
  "hours": lambda r: (
    f"{_num_steps(r) * r['compiler_estimate']['seconds_per_step'] / 3600:.1f}"
  ),
  "GiB of memory": _COLUMNS["GiB of memory"],
}
# The generation and the number of chips of each slice. The name of a v4 or v5p
# slice counts the two cores of a chip.
_SLICES = {
  "v5e-1": ("v5e", 1),
  "v5e-8": ("v5e", 8),
  "v5e-16": ("v5e", 16),
  "v4-32": ("v4", 16),
  "v5p-8": ("v5p", 4),
  "v6e-8": ("v6e", 8),
}
_BATCH = 128  # published


def _num_steps(result: dict) -> int:
  """Returns the number of training steps of the published run."""
  name = pathlib.Path(result["config"]).stem
  config = importlib.import_module(f"hatebm_jax.configs.{name}").get_config()
  return config.train.num_steps


def _print_table(columns: dict, results: list[dict]) -> None:
  """Prints one row per result."""
  print("| " + " | ".join(columns) + " |")
  print("|" + "---|" * len(columns))
  for result in results:
    cells = (str(cell(result)) for cell in columns.values())
    print("| " + " | ".join(cells) + " |")


def _slices(result: dict) -> str:
  """Returns the slices whose chips run this program with the whole batch."""
  generation = result["topology"].partition(":")[0]
  return ", ".join(
    name
    for name, slice_ in _SLICES.items()
    if slice_ == (generation, _BATCH // result["images_per_chip"])
  )


def main() -> None:
  """Prints both tables, with one row per file."""
  files = sorted(pathlib.Path(__file__).parent.glob("*.json"))
  results = [json.loads(path.read_text()) for path in files]
  order = ("config", "dtype", "chips", "topology", "images_per_chip")
  results.sort(key=lambda r: [r[name] for name in order])
  _print_table(_COLUMNS, results)
  print()
  estimated = [r for r in results if "compiler_estimate" in r]
  _print_table({"slice": _slices, **_HOURS}, estimated)


if __name__ == "__main__":
  main()
