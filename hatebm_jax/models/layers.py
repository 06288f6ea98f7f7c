"""Convolutions and resampling that the networks are built from.

All functions take images as `[batch, height, width, channels]`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def avg_pool(x: jax.Array) -> jax.Array:
  """Averages 2x2 patches: `[b, h, w, c]` -> `[b, h/2, w/2, c]`."""
  batch, height, width, channels = x.shape
  patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return patches.mean((2, 4))


def upsample(x: jax.Array) -> jax.Array:
  """Doubles the size bilinearly: `[b, h, w, c]` -> `[b, 2h, 2w, c]`.

  Half-pixel centres, edges clamped (TensorFlow 2's and PyTorch's
  `align_corners=False`): new pixels are 3/4 of the nearest old pixel and 1/4 of
  the next nearest, along each axis.
  """
  for axis in (1, 2):
    size = x.shape[axis]
    before = jnp.concatenate(
      [
        jax.lax.slice_in_dim(x, 0, 1, axis=axis),
        jax.lax.slice_in_dim(x, 0, size - 1, axis=axis),
      ],
      axis,
    )
    after = jnp.concatenate(
      [
        jax.lax.slice_in_dim(x, 1, size, axis=axis),
        jax.lax.slice_in_dim(x, size - 1, size, axis=axis),
      ],
      axis,
    )
    pair = jnp.stack(
      [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1
    )
    x = pair.reshape(
      x.shape[:axis] + (2 * size,) + x.shape[axis + 1 :]
    )
  return x


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution, stride 1, zero padding that keeps the size.

  Args:
    x: `[batch, height, width, in]`.
    kernel: `[3, 3, in, out]`.

  Returns:
    `[batch, height, width, out]`.
  """
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS
  )


def conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`avg_pool(conv3x3(x, kernel))`."""
  return avg_pool(conv3x3(x, kernel))


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv3x3(upsample(x), kernel)`."""
  return conv3x3(upsample(x), kernel)


class Conv3x3(nn.Module):
  """3x3 convolution with bias; `op` says what is fused with it.

  Attributes:
    features: output channels.
    op: `conv3x3`, `conv3x3_down` or `up_conv3x3`.
    dtype: of the computation; parameters are float32.
  """

  features: int
  op: Callable[[jax.Array, jax.Array], jax.Array] = conv3x3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, in]` to `[..., features]`."""
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (3, 3, x.shape[-1], self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    y = self.op(x.astype(self.dtype), kernel.astype(self.dtype))
    return y + bias.astype(self.dtype)


class Conv1x1(nn.Module):
  """1x1 convolution with bias: a matrix product over the channels."""

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, in]` to `[..., features]`."""
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (1, 1, x.shape[-1], self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    y = x.astype(self.dtype) @ kernel[0, 0].astype(self.dtype)
    return y + bias.astype(self.dtype)
