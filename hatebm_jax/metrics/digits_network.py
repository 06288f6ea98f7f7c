"""A small classifier of scikit-learn's digits, whose features are compared.

A Frechet distance in its 64 features is called FD-digits, never FID. It cannot
be compared with published numbers. experiments/digits_network trained the
network.
"""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import pixels
from hatebm_jax.metrics import batches
from hatebm_jax.run import npz

NUM_FEATURES = 64
NAME = "FD-digits"
WEIGHTS = pathlib.Path(__file__).with_name("digits_network.npz")
_SIZE = 16
BATCH_SIZE = 500


class DigitsNetwork(nn.Module):
  """Two convolutions with pooling, a dense feature layer and ten logits."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features `[batch, 64]` and logits `[batch, 10]`.

    Args:
      x: Images `[batch, 16, 16, 1]` in [-1, 1].
    """
    for i, features in enumerate((16, 32)):
      x = nn.relu(nn.Conv(features, (3, 3), name=f"conv_{i}")(x))
      x = nn.avg_pool(x, (2, 2), (2, 2))
    x = x.reshape(len(x), -1)
    x = nn.relu(nn.Dense(NUM_FEATURES, name="features")(x))
    return x, nn.Dense(10, name="logits")(x)


@functools.cache
def load() -> Any:
  """Returns the variables that ship with the package."""
  return flax.traverse_util.unflatten_dict(npz.all_arrays(WEIGHTS), sep="/")


def to_input(images: np.ndarray) -> jax.Array:
  """Returns images as the network takes them.

  Args:
    images: Images, uint8 `[n, height, width, 1]`. Images that are not 16 pixels
      large are resized with antialias.

  Returns:
    float32 `[n, 16, 16, 1]` in [-1, 1].
  """
  shape = (len(images), _SIZE, _SIZE, 1)
  return jax.image.resize(pixels.to_float(jnp.asarray(images)), shape, "linear")


@jax.jit
def _outputs(variables, images):
  return DigitsNetwork().apply(variables, to_input(images))


def outputs(images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns features `[n, 64]` and logits `[n, 10]` of uint8 `[n, h, w, 1]`."""
  return _outputs(load(), images)


def features(images: np.ndarray) -> np.ndarray:
  """Returns features, float32 `[n, 64]`, of uint8 images `[n, h, w, 1]`."""
  return batches.apply(outputs, images, BATCH_SIZE)[0]
