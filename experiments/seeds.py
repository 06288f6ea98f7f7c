"""Shows mean and spread of figures over seeds, as a table in Markdown.

python -m experiments.seeds FILE.json [FILE.json ...]

Each file belongs to one seed. It is the evaluation.json of a digits run, or a
file that experiments/digits_refine/compare.py writes. If out-of-distribution
images were detected, their AUROCs are a second table.
"""

import argparse
import json
import pathlib

import numpy as np

from hatebm_jax import metrics
from hatebm_jax.metrics import digits_network, ood
from hatebm_jax.metrics.metric import Figure

_COLUMNS = ("recognised", "rarest", "frechet_distance")
_NETWORK = digits_network.NAME
_AUROC = ood.FIGURES[0]


def cell(values: list[float], figure: Figure) -> str:
  """Returns mean and sample standard deviation of one figure."""
  if len(set(values)) == 1:
    return figure.text(values[0], _NETWORK)
  mean, spread = np.mean(values), np.std(values, ddof=1)
  return f"{figure.text(mean, _NETWORK)} ± {figure.text(spread, _NETWORK)}"


def table(results: list[dict]) -> str:
  """Returns the table of results that hold the same sets."""
  figures = [metrics.all_figures()[name] for name in _COLUMNS]
  titles = [figure.title or _NETWORK for figure in figures]
  lines = [
    " | ".join(["| images of", *titles]) + " |",
    "|---" * (len(titles) + 1) + "|",
  ]
  for name in results[0]["sets"]:
    sets = [result["sets"][name] for result in results]
    cells = [cell([x[y.name]["mean"] for x in sets], y) for y in figures]
    lines.append(" | ".join([f"| {name}", *cells]) + " |")
  return "\n".join(lines)


def ood_table(results: list[dict]) -> str:
  """Returns the table of AUROCs of results with the same sets.

  The sets of one place belong together. The last part of a folder's name is
  the title, because each seed may have a folder of its own. Scores that a
  result lacks, because an older version wrote it, are left out.
  """
  sets = [list(result["ood"]["sets"].values()) for result in results]
  names = [x.rpartition("/")[2] for x in results[0]["ood"]["sets"]]
  lines = [
    " | ".join([f"| {_AUROC.title} of", *names]) + " |",
    "|---" * (len(names) + 1) + "|",
  ]
  every = [one["scores"] for of_run in sets for one in of_run]
  for score in (x for x in every[0] if all(x in scores for scores in every)):
    found = [
      [x["scores"][score][_AUROC.name]["value"] for x in of_set]
      for of_set in zip(*sets, strict=True)
    ]
    cells = [cell(values, _AUROC) for values in found]
    lines.append(" | ".join([f"| {score.replace('_', ' ')}", *cells]) + " |")
  return "\n".join(lines)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("files", type=pathlib.Path, nargs="+")
  files = parser.parse_args().files
  results = [json.loads(file.read_text()) for file in files]
  print(table(results))
  if "ood" in results[0]:
    print(f"\n{ood_table(results)}")


if __name__ == "__main__":
  main()
