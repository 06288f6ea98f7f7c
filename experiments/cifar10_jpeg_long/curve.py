"""Measures Frechet distances of a run's checkpoints against the training step.

python -m experiments.cifar10_jpeg_long.curve WORKDIR OUT.json \
  --steps 500 1000 1500 --num_images 1000

The script measures hat and generator, with raw and with averaged weights. It
writes OUT.json and, beside it, OUT.png. The chains are those of the run's own
config.evaluate.
"""

import argparse
import json
import pathlib

from matplotlib import figure

from hatebm_jax import config as config_lib
from hatebm_jax import evaluation, sample
from hatebm_jax.run import workdir

_WEIGHTS = ("raw", "averaged")
_SETS = {"samples": "hat", "generated": "generator"}


def measure_step(
  config, path: pathlib.Path, reference: evaluation.Reference | None
) -> tuple[dict[str, float], evaluation.Reference]:
  """Draws images of one checkpoint and one kind of weights, and measures them.

  Args:
    config: Config that names the checkpoint and the kind of weights.
    path: Workdir of the run.
    reference: Reference images of an earlier call. None reads them anew.

  Returns:
    The Frechet distance of each set, and the reference for the next call.
  """
  restored = sample.restore(config, path)
  reference = reference or evaluation.load_reference(restored.config)
  drawn = sample.draw(restored)
  found = {
    label: reference.distance(getattr(drawn, name))
    for name, label in _SETS.items()
  }
  return found, reference


def plot(rows: list[dict], network: str, file: pathlib.Path) -> None:
  """Draws the distances against the training step.

  Args:
    rows: Measured rows, one for each checkpoint and kind of weights.
    network: Name of the distance, which labels the vertical axis.
    file: Path of the .png file to write.
  """
  picture = figure.Figure(figsize=(6, 4), layout="constrained")
  ax = picture.subplots()
  for weights, style in zip(_WEIGHTS, ("-", "--"), strict=True):
    chosen = [row for row in rows if row["weights"] == weights]
    steps = [row["step"] for row in chosen]
    for label, color in zip(_SETS.values(), ("C0", "C1"), strict=True):
      values = [row[label] for row in chosen]
      ax.plot(steps, values, style, color=color, label=f"{label}, {weights}")
  ax.set_xlabel("training step")
  ax.set_ylabel(network)
  ax.set_ylim(bottom=0)
  ax.grid(alpha=0.3)
  ax.legend()
  picture.savefig(file, dpi=100)


def main() -> None:
  """Measures the checkpoints that `--steps` names."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--steps", type=int, nargs="+", required=True)
  parser.add_argument("--num_images", type=int, default=1_000)
  args = parser.parse_args()
  path, rows, reference = args.workdir.absolute(), [], None
  config = config_lib.default()
  config.evaluate.update(workdir.read_config(path).evaluate)
  config.sample.num_images = args.num_images
  for step in args.steps:
    for weights in _WEIGHTS:
      config.sample.update({"checkpoint": step, "weights": weights})
      found, reference = measure_step(config, path, reference)
      rows.append({"step": step, "weights": weights, **found})
      print(rows[-1], flush=True)
  result = {
    "num_images": args.num_images,
    "langevin_steps": config.evaluate.num_steps,
    "protocol": reference.protocol,
    "rows": rows,
  }
  args.out.write_text(json.dumps(result, indent=2) + "\n")
  plot(rows, reference.space.name, args.out.with_suffix(".png"))


if __name__ == "__main__":
  main()
