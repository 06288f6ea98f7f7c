"""Mean and spread over seeds, as a table in Markdown.

python -m experiments.seeds FILE.json [FILE.json ...]

Each file is one seed's: an evaluation.json of a digits run, or what
experiments/digits_refine/compare.py writes.
"""

import argparse
import json
import pathlib

import numpy as np

_COLUMNS = {
  "recognised": ("recognised", "{:.1%}"),
  "rarest": ("rarest digit", "{:.1%}"),
  "frechet_distance": ("FD-digits", "{:.1f}"),
}


def cell(values: list[float], form: str) -> str:
  """Returns mean and sample standard deviation of one figure."""
  if len(set(values)) == 1:
    return form.format(values[0])
  mean, spread = np.mean(values), np.std(values, ddof=1)
  return f"{form.format(mean)} ± {form.format(spread)}"


def table(results: list[dict]) -> str:
  """Returns the table of results that hold the same sets."""
  titles = [title for title, _ in _COLUMNS.values()]
  lines = [
    " | ".join(["| images of", *titles]) + " |",
    "|---" * (len(titles) + 1) + "|",
  ]
  for name in results[0]["sets"]:
    cells = [
      cell([result["sets"][name][key]["mean"] for result in results], form)
      for key, (_, form) in _COLUMNS.items()
    ]
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
