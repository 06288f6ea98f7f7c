"""Plots the ladders of measured.json.

python -m experiments.yardstick.plot measured.json OUT.png
"""

import json
import pathlib
import sys

import matplotlib.pyplot as plt

# Labels of the figures that are shown.
_ROWS = {"frechet_distance": "Fréchet distance", "recall": "recall"}


def main() -> None:
  """Draws a row for each figure of each space, and a column for each ladder."""
  found = json.loads(pathlib.Path(sys.argv[1]).read_text())
  ladders = list(next(iter(found.values()))["ladders"])
  rows = [(space, figure) for figure in _ROWS for space in found]
  plot, axes = plt.subplots(
    len(rows),
    len(ladders),
    figsize=(3 * len(ladders), 2.3 * len(rows)),
    sharey="row",
    squeeze=False,
  )
  for (space, figure), line in zip(rows, axes, strict=True):
    floor = [row[figure] for row in found[space]["floor"]]
    for name, axis in zip(ladders, line, strict=True):
      rungs = found[space]["ladders"][name]
      axis.axhspan(min(floor), max(floor), color="0.8")
      axis.plot(range(len(rungs)), [row[figure] for _, row in rungs], "o-")
      labels = ["real", *(str(value) for value, _ in rungs[1:])]
      axis.set_xticks(range(len(rungs)), labels)
      if figure == "frechet_distance":
        axis.set_yscale("log")
      if axis is axes[-1, ladders.index(name)]:
        axis.set_xlabel(name)
    short = space.removeprefix("FD-")
    line[0].set_ylabel(f"{short}\n{_ROWS[figure]}", fontsize=9)
  plot.tight_layout()
  plot.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
  main()
