"""Finds the metrics of sets of images by walking this package."""

import importlib
import pkgutil
import types

from hatebm_jax import metrics
from hatebm_jax.metrics.figures import Figure

_FIRST = "frechet"


def modules() -> list[types.ModuleType]:
  """Returns the modules that measure sets of images.

  These are the modules of `hatebm_jax.metrics` that have `FIGURES` and
  `figures`. The Frechet distance comes first; the others follow by name.
  """
  names = [module.name for module in pkgutil.iter_modules(metrics.__path__)]
  names.sort(key=lambda name: (name != _FIRST, name))
  found = [
    importlib.import_module(f"{metrics.__name__}.{name}") for name in names
  ]
  return [
    module
    for module in found
    if hasattr(module, "FIGURES") and hasattr(module, "figures")
  ]


def figures() -> dict[str, Figure]:
  """Returns all figures of sets of images by name, in the order of display."""
  return {
    figure.name: figure for module in modules() for figure in module.FIGURES
  }
