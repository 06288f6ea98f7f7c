"""Runs heats of the race, and prints the table.

python -m experiments.race digits published --seed=0 --core=0 --runs=runs/race
python -m experiments.race fashion all --data=FOLDER --runs=runs/race
python -m experiments.race digits

A heat trains within the budget of its course and adds a line to results.jsonl.
A heat that has a line is not run again; one that was stopped goes on. Without a
recipe, the command prints the table of the course.
"""

import argparse
import pathlib

from experiments.race import courses, heat, recipes, settings, table


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("course", choices=courses.COURSES)
  parser.add_argument(
    "recipe", nargs="*", choices=(*recipes.RECIPES, "all", []), default=[]
  )
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--core", type=int, default=0, help="core of the CPU")
  parser.add_argument(
    "--runs", type=pathlib.Path, default="runs/race", help="folder of all runs"
  )
  parser.add_argument(
    "--data", type=pathlib.Path, help="folder of images; digits needs none"
  )
  args = parser.parse_args()
  if args.recipe and (args.data is None) != (args.course == "digits"):
    parser.error("digits takes no --data, and the other courses need it.")
  if args.data and not args.data.is_dir():
    parser.error(f"--data: expected a folder of images, found no {args.data}.")
  data = "" if args.data is None else f"folder:{args.data.absolute()}"
  settings.use_core(args.core)
  names = recipes.RECIPES if args.recipe == ["all"] else args.recipe
  for name in names:
    if not table.has(args.course, name, args.seed):
      folder = args.runs.absolute() / f"{args.course}_{name}_{args.seed}"
      folder.mkdir(parents=True, exist_ok=True)
      table.add(heat.run(args.course, name, args.seed, folder, data))
  print(table.as_markdown(args.course))


if __name__ == "__main__":
  main()
