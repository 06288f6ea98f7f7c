"""Plots the curves of a run: python experiments/curves.py WORKDIR OUT.png."""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = {
  "energy_gap": "H(data) - H(samples)",
  "discriminator_loss": "discriminator loss (hinge)",
  "reconstruction_loss": "reconstruction loss, 1000 x mean square",
  "test_loss": "reconstruction loss, test split",
  "generator_loss": "generator loss",
  "drift_norm_y": "drift of y, L2 norm a step",
  "drift_norm_z": "drift of z, L2 norm a step",
  "norm_z": "||z|| at the chains' end",
  "saturation": "share of sample pixels outside [-1, 1]",
}


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads the lines of a run's metrics.jsonl."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def plot(lines: list[dict[str, float]], out: pathlib.Path) -> None:
  """Draws a panel a metric that the run has, against the training step."""
  titles = {k: v for k, v in PANELS.items() if any(k in line for line in lines)}
  rows = -(-len(titles) // 2)
  figure, axes = plt.subplots(rows, 2, figsize=(10, 3 * rows), squeeze=False)
  for ax, (name, title) in zip(axes.flat, titles.items(), strict=False):
    having = [line for line in lines if name in line]
    steps = [line["step"] for line in having]
    ax.plot(steps, [line[name] for line in having], linewidth=1)
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
    if name == "energy_gap":
      # It spikes by orders of magnitude and changes its sign.
      ax.set_yscale("symlog", linthresh=1e-3)
  for ax in axes[-1]:
    ax.set_xlabel("training step")
  figure.tight_layout()
  figure.savefig(out, dpi=100)


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit("usage: python experiments/curves.py WORKDIR OUT.png")
  plot(read_metrics(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))
