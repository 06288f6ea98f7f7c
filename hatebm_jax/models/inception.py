"""The Inception network of 2015, in whose features FID is measured.

It differs from the Inception v3 of later libraries: it has 1,008 classes, its
average pools leave padding out, and its last block has a max pool (Szegedy et
al., CVPR 2016; Heusel et al., NeurIPS 2017). The layers have the names of the
usual PyTorch ports, so that their weight files can be read.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

NUM_FEATURES = 2048
NUM_CLASSES = 1008

# A block is a list of branches whose outputs are joined. A branch is a list of
# steps. A step is a convolution (name, features, kernel, stride), a pool, or a
# list of parallel convolutions whose outputs are joined too.
_AVERAGE, _MAX, _MAX_STRIDED = "average", "max", "max, stride 2"
_ROW, _COLUMN = (1, 7), (7, 1)
_THREES = (1, 3), (3, 1)


def _block_a(pool_features: int) -> list:
  return [
    [("branch1x1", 64, 1)],
    [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
    [
      ("branch3x3dbl_1", 64, 1),
      ("branch3x3dbl_2", 96, 3),
      ("branch3x3dbl_3", 96, 3),
    ],
    [_AVERAGE, ("branch_pool", pool_features, 1)],
  ]


def _block_b() -> list:
  return [
    [("branch3x3", 384, 3, 2)],
    [
      ("branch3x3dbl_1", 64, 1),
      ("branch3x3dbl_2", 96, 3),
      ("branch3x3dbl_3", 96, 3, 2),
    ],
    [_MAX_STRIDED],
  ]


def _block_c(width: int) -> list:
  return [
    [("branch1x1", 192, 1)],
    [
      ("branch7x7_1", width, 1),
      ("branch7x7_2", width, _ROW),
      ("branch7x7_3", 192, _COLUMN),
    ],
    [
      ("branch7x7dbl_1", width, 1),
      ("branch7x7dbl_2", width, _COLUMN),
      ("branch7x7dbl_3", width, _ROW),
      ("branch7x7dbl_4", width, _COLUMN),
      ("branch7x7dbl_5", 192, _ROW),
    ],
    [_AVERAGE, ("branch_pool", 192, 1)],
  ]


def _block_d() -> list:
  return [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
    [
      ("branch7x7x3_1", 192, 1),
      ("branch7x7x3_2", 192, _ROW),
      ("branch7x7x3_3", 192, _COLUMN),
      ("branch7x7x3_4", 192, 3, 2),
    ],
    [_MAX_STRIDED],
  ]


def _block_e(pool: str) -> list:
  def fork(name):
    return [
      (f"{name}{letter}", 384, kernel)
      for letter, kernel in zip("ab", _THREES, strict=True)
    ]

  return [
    [("branch1x1", 320, 1)],
    [("branch3x3_1", 384, 1), fork("branch3x3_2")],
    [
      ("branch3x3dbl_1", 448, 1),
      ("branch3x3dbl_2", 384, 3),
      fork("branch3x3dbl_3"),
    ],
    [pool, ("branch_pool", 192, 1)],
  ]


_BLOCKS = {
  "Mixed_5b": _block_a(32),
  "Mixed_5c": _block_a(64),
  "Mixed_5d": _block_a(64),
  "Mixed_6a": _block_b(),
  "Mixed_6b": _block_c(128),
  "Mixed_6c": _block_c(160),
  "Mixed_6d": _block_c(160),
  "Mixed_6e": _block_c(192),
  "Mixed_7a": _block_d(),
  "Mixed_7b": _block_e(_AVERAGE),
  "Mixed_7c": _block_e(_MAX),
}
# These convolutions and pools come before the blocks.
_STEM = [
  ("Conv2d_1a_3x3", 32, 3, 2),
  ("Conv2d_2a_3x3", 32, 3, 1, "VALID"),
  ("Conv2d_2b_3x3", 64, 3),
  _MAX_STRIDED,
  ("Conv2d_3b_1x1", 80, 1),
  ("Conv2d_4a_3x3", 192, 3, 1, "VALID"),
  _MAX_STRIDED,
]


class _ConvNorm(nn.Module):
  """Convolution without bias, batch norm, ReLU."""

  features: int
  kernel: tuple[int, int]
  stride: int
  padding: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    strides = (self.stride, self.stride)
    x = nn.Conv(
      self.features,
      self.kernel,
      strides,
      self.padding,
      use_bias=False,
      name="conv",
    )(x)
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")
    return nn.relu(norm(x))


def _convolution(
  name: str, features: int, kernel: Any, stride: int = 1, padding: str = ""
) -> _ConvNorm:
  kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
  padding = padding or ("SAME" if stride == 1 else "VALID")
  return _ConvNorm(features, kernel, stride, padding, name=name)


_POOLS = {
  _AVERAGE: functools.partial(
    nn.avg_pool,
    window_shape=(3, 3),
    padding="SAME",
    count_include_pad=False,
  ),
  _MAX: functools.partial(nn.max_pool, window_shape=(3, 3), padding="SAME"),
  _MAX_STRIDED: functools.partial(
    nn.max_pool, window_shape=(3, 3), strides=(2, 2)
  ),
}


def _walk(steps: list, x: jax.Array) -> jax.Array:
  """Applies the steps of a branch."""
  for step in steps:
    if isinstance(step, str):
      x = _POOLS[step](x)
    elif isinstance(step, list):
      x = jnp.concatenate([_convolution(*part)(x) for part in step], -1)
    else:
      x = _convolution(*step)(x)
  return x


class _Block(nn.Module):
  """Block of the network. Its name says which one."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    branches = [_walk(branch, x) for branch in _BLOCKS[self.name]]
    return jnp.concatenate(branches, -1)


class Inception(nn.Module):
  """The Inception network of 2015."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features `[batch, 2048]` and logits `[batch, 1008]`.

    Args:
      x: Images `[batch, 299, 299, 3]` that `preprocess` returned.
    """
    x = _walk(_STEM, x)
    for name in _BLOCKS:
      x = _Block(name=name)(x)
    features = x.mean((1, 2))
    return features, nn.Dense(NUM_CLASSES, name="fc")(features)


def preprocess(images: jax.Array) -> jax.Array:
  """Returns the input of the network for images.

  Images are resized as in TensorFlow 1: bilinearly and without half-pixel
  centres, so that pixel i of the output is at i * size / 299 of the input. All
  published FIDs were computed this way. Then x becomes (x - 128) / 128.

  Args:
    images: Images `[batch, height, width, 3]`, uint8.

  Returns:
    Images `[batch, 299, 299, 3]`, float32.
  """
  _, height, width, _ = images.shape
  x = images.astype(jnp.float32)
  x = jnp.einsum("oh,bhwc->bowc", _resize_weights(height), x)
  x = jnp.einsum("ow,bhwc->bhoc", _resize_weights(width), x)
  return (x - 128) / 128


def _resize_weights(size: int) -> jax.Array:
  """Returns the weights of input pixels in output pixels, `[299, size]`."""
  where = jnp.arange(299) * (size / 299)
  low = jnp.floor(where).astype(int)
  part = (where - low)[:, None]
  high = jnp.minimum(low + 1, size - 1)
  one_hot = functools.partial(jax.nn.one_hot, num_classes=size)
  return (1 - part) * one_hot(low) + part * one_hot(high)
