"""Measures of images, chains and scores.

A metric of sets of images is one module here. It declares its figures in a
tuple `FIGURES` and computes them in a function `figures(sample, reference)`;
see `hatebm_jax.metrics.metric`. `all_metrics` finds it by walking this package,
so that the console, evaluation.json and the report have its figures too.
"""

import importlib
import pkgutil
import types

from hatebm_jax.metrics.metric import Figure

_FIRST = "frechet"


def all_metrics() -> list[types.ModuleType]:
  """Returns the modules that measure sets of images.

  These are the modules of this package that have `FIGURES` and `figures`. The
  Frechet distance comes first; the others follow by name.
  """
  names = [module.name for module in pkgutil.iter_modules(__path__)]
  names.sort(key=lambda name: (name != _FIRST, name))
  found = [importlib.import_module(f"{__name__}.{name}") for name in names]
  return [
    module
    for module in found
    if hasattr(module, "FIGURES") and hasattr(module, "figures")
  ]


def all_figures() -> dict[str, Figure]:
  """Returns all figures of sets of images by name, in the order of display."""
  return {
    figure.name: figure for module in all_metrics() for figure in module.FIGURES
  }
