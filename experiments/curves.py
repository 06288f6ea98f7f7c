"""Plots the curves of a run: python experiments/curves.py WORKDIR OUT.png."""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = {
  "energy_gap": "H(data) - H(samples)",
  "generator_loss": "generator loss, 1000 x mean square",
  "drift_norm_y": "drift of y, L2 norm a step",
  "saturation": "share of sample pixels outside [-1, 1]",
}


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads the lines of a run's metrics.jsonl."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def plot(lines: list[dict[str, float]], out: pathlib.Path) -> None:
  """Draws a panel a metric against the training step."""
  figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex=True)
  steps = [line["step"] for line in lines]
  for ax, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
    ax.plot(steps, [line[name] for line in lines], linewidth=1)
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
  # The gap spikes by orders of magnitude and changes its sign.
  axes.flat[0].set_yscale("symlog", linthresh=1e-3)
  for ax in axes[1]:
    ax.set_xlabel("training step")
  figure.tight_layout()
  figure.savefig(out, dpi=100)


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit("usage: python experiments/curves.py WORKDIR OUT.png")
  plot(read_metrics(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))
