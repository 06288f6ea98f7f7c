"""The table of results: a line of JSON for each heat."""

import json
import pathlib
import statistics
from typing import Any

FILE = pathlib.Path(__file__).parent / "results.jsonl"
_COLUMNS = (
  *("recipe", "seeds", "training steps", "Langevin steps", "distance"),
  *("generator alone", "recognised", "recall", "coverage", "lasting"),
  "nearest",
)


def rows() -> list[dict[str, Any]]:
  """Returns all rows."""
  lines = FILE.read_text().splitlines() if FILE.exists() else []
  return [json.loads(line) for line in lines]


def has(course: str, recipe: str, seed: int) -> bool:
  """Returns whether a heat has a row."""
  key = course, recipe, seed
  return any((x["course"], x["recipe"], x["seed"]) == key for x in rows())


def add(row: dict[str, Any]) -> None:
  """Adds a row.

  Args:
    row: Row of a heat.
  """
  with FILE.open("a") as file:
    file.write(f"{json.dumps(row)}\n")


def as_markdown(course: str) -> str:
  """Returns the rows of a course, means over seeds, the best one first.

  Args:
    course: Name of the course.
  """
  groups = {}
  for row in rows():
    if row["course"] == course:
      groups.setdefault(row["recipe"], []).append(row)
  distance = lambda row: row["hat"]["frechet_distance"]
  order = sorted(
    groups, key=lambda name: statistics.mean(map(distance, groups[name]))
  )
  lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
  return "\n".join(
    [*lines, *(_line(_cells(name, groups[name])) for name in order)]
  )


def _line(cells) -> str:
  return f"| {' | '.join(map(str, cells))} |"


def _cells(name: str, group: list[dict[str, Any]]) -> list[str]:
  """Returns the cells of a recipe."""

  def mean(figure, of="hat"):
    values = [row[of].get(figure) for row in group]
    return "" if None in values else f"{statistics.mean(values):.3g}"

  several = lambda key: ", ".join(str(row[key]) for row in group)
  return [
    *(name, several("seed"), several("training_steps")),
    several("langevin_steps"),
    *(mean("frechet_distance"), mean("frechet_distance", "generator")),
    *(mean("recognised"), mean("recall"), mean("coverage")),
    f"{statistics.mean(row['lasting'] for row in group):.3g}",
    f"{statistics.mean(row['nearest'] for row in group):.2f}",
  ]
