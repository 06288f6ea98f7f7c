"""Hat EBM in JAX: energy-based models X = G(Z) + Y on any generator G.

The names of `__all__` are loaded when they are first used, so that
`import hatebm_jax` loads neither JAX nor TensorFlow.
"""

import importlib
import os
from typing import Any

# TensorFlow only reads data and writes TensorBoard files here. Without these
# settings it would print a greeting to stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# etils would reach buckets through TensorFlow where that is installed, and
# TensorFlow's wheels know no s3://. It must be told before it is imported.
os.environ.setdefault("EPATH_USE_TF", "0")

__version__ = "0.1.0"

_MODULES = (
  "convert",
  "data",
  "energy",
  "langevin",
  "metrics",
  "models",
  "sample",
  "train",
)
_CLASSES = ("Generator", "Hat")  # in hatebm_jax.networks

__all__ = [*_CLASSES, *_MODULES]


def __getattr__(name: str) -> Any:
  """Loads a public name when it is first used."""
  if name in _MODULES:
    return importlib.import_module(f"{__name__}.{name}")
  if name in _CLASSES:
    networks = importlib.import_module(f"{__name__}.networks")
    return getattr(networks, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
