"""A heat: one recipe on one course with one seed, trained once and measured."""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from experiments.race import courses, nearest, recipes, settings

_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parents[1]
PATCHES = _HERE / "patches"
# What a heat runs: a copy of these, with the patches of its recipe.
_PARTS = ("hatebm_jax", "configs", "experiments/race")
_FIGURES = (
  *("frechet_distance", "kernel_distance", "precision", "recall"),
  *("coverage", "recognised", "rarest"),
)
_SETS = ("hat", "generator", "held_out")


def run(
  course: str, recipe: str, seed: int, folder: pathlib.Path, data: str
) -> dict[str, Any]:
  """Trains a recipe within the budget of a course, and measures its samples.

  A heat that was stopped goes on where it was.

  Args:
    course: Name of the course.
    recipe: Name of the recipe.
    seed: Seed of the run.
    folder: Folder for the files of this heat. The cost of a step of the recipe
      is kept beside it.
    data: Source of the images; empty: that of the config.

  Returns:
    A row of the table of results.
  """
  tree, commit = make_tree(recipe, folder / "code"), _commit()
  cost = _cost(tree, course, recipe, folder.parent)
  group = courses.COURSES[course]
  num_steps = int(group.seconds * courses.GFLOPS / cost)
  chosen = settings.overrides(course, recipe, num_steps, data)
  as_trained = {"evaluate.num_steps": chosen["langevin.num_steps"]}
  # What a heat measures, it measures after its training.
  chosen |= {"seed": seed, "sample.num_images": 64, "chains.num_chains": 0}
  workdir = folder / "run"
  _tell(folder, f"trains for {num_steps:,} steps of {cost:.3g} GFLOP")
  _main(
    tree,
    f"--config={group.config}",
    f"--workdir={workdir}",
    **chosen | as_trained,
  )
  _tell(folder, "runs long chains")
  long = courses.LONG_CHAINS | as_trained
  chains = _evaluate(tree, workdir, long, group.metrics)["chains"]
  # The generator alone may be nearest, but samples are drawn by chains.
  best_steps = chains["best_steps"] or as_trained["evaluate.num_steps"]
  best = {"evaluate.num_steps": best_steps}
  _tell(folder, f"measures samples after {best_steps} Langevin steps")
  return {
    **{"course": course, "recipe": recipe, "seed": seed},
    **{"training_steps": num_steps, "gflop_a_step": round(cost, 2)},
    "langevin_steps": best_steps,
    **_figures(_evaluate(tree, workdir, best, group.metrics)["sets"]),
    "curve": [[x["step"], x["frechet_distance"]] for x in chains["curve"]],
    "lasting": _lasting(chains),
    "nearest": nearest.measure(_samples(tree, workdir, best), workdir),
    "commit": commit,
    "date": datetime.date.today().isoformat(),
  }


def _tell(folder: pathlib.Path, what: str) -> None:
  """Prints what a heat does now."""
  now = datetime.datetime.now().isoformat(" ", "seconds")
  print(f"{now} {folder.name} {what}.", flush=True)


def _lasting(chains: dict[str, Any]) -> float:
  """Returns the distance of the longest chains over that of training's length.

  Args:
    chains: Group `chains` of evaluation.json.
  """
  curve, trained = chains["curve"], chains["training_steps"]
  nearest_point = min(curve, key=lambda point: abs(point["step"] - trained))
  return curve[-1]["frechet_distance"] / nearest_point["frechet_distance"]


def make_tree(recipe: str, tree: pathlib.Path) -> pathlib.Path:
  """Copies the package and applies the patches of a recipe.

  Args:
    recipe: Name of the recipe.
    tree: Folder for the copy; it is made anew.

  Returns:
    The same folder.
  """
  shutil.rmtree(tree, ignore_errors=True)
  # Within a repository, git would take the paths of a patch for its own, and
  # skip them all without an error.
  environment = os.environ | {
    "GIT_CEILING_DIRECTORIES": str(tree.parent.resolve())
  }
  for part in _PARTS:
    shutil.copytree(_ROOT / part, tree / part)
  for name in recipes.RECIPES[recipe].patches:
    patch = PATCHES / f"{name}.patch"
    subprocess.run(
      ["git", "apply", patch], cwd=tree, env=environment, check=True
    )
  return tree


def _python(tree: pathlib.Path, *arguments: str) -> str:
  """Runs a command in a copy of the package; returns what it prints."""
  environment = os.environ | {
    "PYTHONPATH": str(tree),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    # All heats share it.
    "JAX_COMPILATION_CACHE_DIR": str(tree.parents[1] / "xla_cache"),
  }
  return subprocess.run(
    [sys.executable, "-m", *arguments],
    cwd=tree,
    env=environment,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout


def _main(tree: pathlib.Path, *arguments: str, **overrides: Any) -> None:
  """Runs the package's command."""
  _python(tree, "hatebm_jax.main", *arguments, *settings.flags(overrides))


def _cost(
  tree: pathlib.Path, course: str, recipe: str, folder: pathlib.Path
) -> float:
  """Returns the GFLOP of a training step; they are measured once."""
  file = folder / f"{course}_{recipe}.gflop"
  if not file.exists():
    file.write_text(_python(tree, "experiments.race.pace", course, recipe))
  return float(file.read_text())


def _evaluate(
  tree: pathlib.Path,
  workdir: pathlib.Path,
  chosen: dict[str, Any],
  metrics: Mapping[str, object],
) -> dict[str, Any]:
  """Returns evaluation.json with some settings; it is made once."""
  name = "_".join(str(value) for value in chosen.values())
  out = workdir.parent / f"evaluation_{name}"
  if not (out / "evaluation.json").exists():
    _main(
      tree,
      f"--workdir={workdir}",
      f"--out={out}",
      "--mode=evaluate",
      **courses.EVALUATION | metrics | chosen,
    )
  return json.loads((out / "evaluation.json").read_text())


def _samples(
  tree: pathlib.Path, workdir: pathlib.Path, chosen: dict[str, Any]
) -> pathlib.Path:
  """Draws samples; returns their file."""
  out = workdir.parent / "samples"
  chosen = courses.EVALUATION | chosen
  _main(tree, f"--workdir={workdir}", f"--out={out}", "--mode=sample", **chosen)
  return next(iter(out.rglob("*.npz")))


def _figures(sets: dict[str, Any]) -> dict[str, dict[str, float]]:
  """Returns the figures that a row keeps, by set of images."""
  return {
    of: {name: sets[of][name]["mean"] for name in _FIGURES if name in sets[of]}
    for of in _SETS
    if of in sets
  }


def _commit() -> str:
  """Returns the commit of the checkout."""
  command = ["git", "rev-parse", "--short", "HEAD"]
  return subprocess.check_output(command, cwd=_ROOT, text=True).strip()
