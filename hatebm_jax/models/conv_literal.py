"""The literal form of the convolutions: it defines what all forms compute.

All functions take images as `[batch, height, width, channels]` and kernels as
`[window, window, in, out]`. The gradients are XLA's own.
"""

from typing import TypeAlias

import jax

from hatebm_jax.models import resample

Padding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

SAME = ((1, 1), (1, 1))  # padding of a 3x3 convolution that keeps the size
VALID = ((0, 0), (0, 0))


def convolve(
  x: jax.Array, kernel: jax.Array, padding: Padding, stride: int = 1
) -> jax.Array:
  """Convolution with zero padding.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[window, window, in, out]`.
    padding: Rows before and after the image, then columns.
    stride: Stride along both axes.
  """
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution, stride 1, zero padding that keeps the size."""
  return convolve(x, kernel, SAME)


def conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolution at full size, then 2x2 average pool."""
  return resample.avg_pool(conv3x3(x, kernel))


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up, then convolution at full size."""
  return conv3x3(resample.upsample(x), kernel)


def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """1x1 convolution: a matrix product over the channels."""
  return x @ kernel[0, 0]


def conv1x1_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """2x2 average pool, then 1x1 convolution.

  The two commute. This order costs less, also where the paper's block convolves
  first.
  """
  return conv1x1(resample.avg_pool(x), kernel)


def up_conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """1x1 convolution, then bilinear up.

  The two commute. This order costs less, also where the paper's block convolves
  last.
  """
  return resample.upsample(conv1x1(x, kernel))
