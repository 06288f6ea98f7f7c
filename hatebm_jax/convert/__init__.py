"""Reads other people's weights. Each converter makes a module and variables.

`python -m hatebm_jax.convert` writes them as an .npz, and `load_npz` reads it.
"""

from hatebm_jax.convert.efficientnet import from_efficientnet
from hatebm_jax.convert.inception import from_inception
from hatebm_jax.convert.mimicry import from_mimicry
from hatebm_jax.convert.network import ConvertError
from hatebm_jax.convert.npz import load_npz, save_npz
from hatebm_jax.convert.tf2 import from_tf2

__all__ = [
  "ConvertError",
  "from_efficientnet",
  "from_inception",
  "from_mimicry",
  "from_tf2",
  "load_npz",
  "save_npz",
]
