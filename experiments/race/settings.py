"""Settings of a heat as a config and as flags."""

import importlib
import os

import ml_collections

from experiments.race import courses, recipes


def overrides(
  course: str, recipe: str, num_steps: int, data: str = ""
) -> dict[str, object]:
  """Returns what a heat changes in the config of its course.

  Args:
    course: Name of the course.
    recipe: Name of the recipe.
    num_steps: Number of training steps.
    data: Source of the images; empty: that of the config.
  """
  chosen = courses.COURSES[course]
  changed = recipes.RECIPES[recipe].overrides(num_steps, chosen.rate)
  found = chosen.settings | changed
  return found | ({"data.source": data} if data else {})


def config(
  course: str, recipe: str, num_steps: int
) -> ml_collections.ConfigDict:
  """Returns the config of a heat."""
  module = importlib.import_module(
    f"hatebm_jax.configs.{courses.COURSES[course].config}"
  )
  found = module.get_config()
  with found.unlocked():
    found.update_from_flattened_dict(overrides(course, recipe, num_steps))
  return found


def flags(values: dict[str, object]) -> list[str]:
  """Returns overrides as flags."""
  return [f"--config.{name}={value}" for name, value in values.items()]


def use_core(core: int) -> None:
  """Keeps this process and its children on one core."""
  os.sched_setaffinity(0, {core})
