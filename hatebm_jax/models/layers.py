"""Linen modules that the networks are built from."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops


class Conv3x3(nn.Module):
  """3x3 convolution with bias, optionally fused with a resampling.

  Attributes:
    features: Number of output channels.
    op: Function of an image and a kernel: `conv3x3`, `conv3x3_down` or
      `up_conv3x3` of `conv_ops`.
    dtype: Type of the computation; parameters are float32.
  """

  features: int
  op: Callable[[jax.Array, jax.Array], jax.Array] = conv_ops.conv3x3
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
  """1x1 convolution with bias: a matrix product over the channels.

  Attributes:
    features: Number of output channels.
    dtype: Type of the computation; parameters are float32.
  """

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
