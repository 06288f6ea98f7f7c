"""Measures how cost grows with batch, width, image size and Langevin steps.

python experiments/speed/growth.py OUT.json OUT.png
"""

import argparse
import functools
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from hatebm_jax import benchmark
from hatebm_jax.configs import cifar10

_BASE = {"batch": 8, "width": 64, "image size": 32, "Langevin steps": 12}
_VALUES = {
  "batch": (2, 8, 32),
  "width": (32, 64, 128),
  "image size": (16, 32, 64),
  "Langevin steps": (12, 48),
}
_ROUNDS = 2


@functools.cache
def _measure(**settings: int) -> dict[str, dict]:
  config = cifar10.get_config()
  config.unlock()
  config.train.batch_size = settings["batch"]
  config.model.width = settings["width"]
  config.data.image_size = settings["image size"]
  config.langevin.num_steps = settings["Langevin steps"]
  # A bank of full size would need the memory of 10,000 large images.
  config.generator.bank_size = 512
  result = benchmark.measure(config, _ROUNDS, forms=["auto"])
  return {"settings": settings, **result}


def _plot(results: dict[str, list[dict]], out: pathlib.Path) -> None:
  """Draws one panel per setting: seconds, and the floor of minimal FLOPs."""
  figure, panels = plt.subplots(1, len(results), figsize=(16, 4.5), sharey=True)
  for panel, (name, runs) in zip(panels, results.items(), strict=True):
    values = [run["settings"][name] for run in runs]
    for title in runs[0]["work"]:
      rows = [run["work"][title] for run in runs]
      (line,) = panel.plot(
        values, [row["seconds"] for row in rows], "o-", label=title
      )
      floors = [
        row["minimal_gflop"] / run["matrix_product_gflops"]
        for row, run in zip(rows, runs, strict=True)
      ]
      panel.plot(values, floors, ":", color=line.get_color())
    panel.set(xscale="log", yscale="log", xlabel=name)
    panel.set_xticks(values, [str(value) for value in values], minor=False)
    panel.set_xticks([], minor=True)
    panel.grid(alpha=0.3)
  panels[0].set_ylabel("seconds (dotted: minimal FLOPs / product rate)")
  panels[-1].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(out, dpi=90)


def main() -> None:
  """Measures the cost while one setting at a time varies, and plots it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("json", type=pathlib.Path)
  parser.add_argument("png", type=pathlib.Path)
  args = parser.parse_args()
  results = {
    name: [_measure(**{**_BASE, name: value}) for value in values]
    for name, values in _VALUES.items()
  }
  args.json.write_text(json.dumps(results, indent=1) + "\n")
  _plot(results, args.png)


if __name__ == "__main__":
  main()
