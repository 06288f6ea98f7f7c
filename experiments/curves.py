"""Plots the curves of a run: python experiments/curves.py WORKDIR OUT.png.

`python -m hatebm_jax.report WORKDIR` shows the same curves on a page.
"""

import pathlib
import sys

from matplotlib.figure import Figure

from hatebm_jax.report import curves
from hatebm_jax.run import workdir


def plot(lines: list[dict[str, float]], out: pathlib.Path) -> None:
  """Draws one panel for each metric of a run.

  Args:
    lines: Lines of the run's metrics.jsonl.
    out: Path of the PNG to write.
  """
  names = curves.panels(lines)
  rows = -(-len(names) // 2)
  figure = Figure(figsize=(10, 3 * rows), layout="constrained")
  axes = figure.subplots(rows, 2, squeeze=False)
  for ax, name in zip(axes.flat, names, strict=False):
    curves.draw(ax, lines, name)
  for ax in axes.flat[len(names) :]:
    ax.remove()
  figure.savefig(out, dpi=100)


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit("usage: python experiments/curves.py WORKDIR OUT.png")
  metrics = workdir.read_metrics(pathlib.Path(sys.argv[1]))
  plot(metrics, pathlib.Path(sys.argv[2]))
