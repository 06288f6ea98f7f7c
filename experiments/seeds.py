"""Shows mean and spread of figures over seeds, as a table in Markdown.

python -m experiments.seeds FILE.json [FILE.json ...]

Each file belongs to one seed. It is the evaluation.json of a digits run, or a
file that experiments/digits_refine/compare.py writes.
"""

import argparse
import json
import pathlib

import numpy as np

from hatebm_jax import metrics
from hatebm_jax.metrics import digits_network
from hatebm_jax.metrics.metric import Figure

_COLUMNS = ("recognised", "rarest", "frechet_distance")
_NETWORK = digits_network.NAME


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


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("files", type=pathlib.Path, nargs="+")
  files = parser.parse_args().files
  print(table([json.loads(file.read_text()) for file in files]))


if __name__ == "__main__":
  main()
