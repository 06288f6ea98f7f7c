"""Linen modules that the networks are built from."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops

# The collection of variables that holds prepared kernels.
_PREPARED = "prepared"


class Conv(nn.Module):
  """Convolution with bias, optionally fused with a resampling.

  Attributes:
    features: Number of output channels.
    op: Convolution of a form of `conv_ops`.
    dtype: Type of the computation; parameters are float32.
  """

  features: int
  op: conv_ops.Op
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, in]` to `[..., features]`."""
    window = self.op.window
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (window, window, x.shape[-1] // self.op.pixels, self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    kernel = self._prepared("kernel", lambda: self.op.prepare(kernel))
    bias = self._prepared("bias", lambda: self.op.prepare_bias(bias, x.shape))
    return self.op.apply(x.astype(self.dtype), kernel) + bias

  def _prepared(self, name: str, make: Callable[[], Any]) -> Any:
    """Returns what the operation takes; see `prepare`."""
    if self.has_variable(_PREPARED, name):
      return self.get_variable(_PREPARED, name)
    arrays = jax.tree.map(lambda a: a.astype(self.dtype), make())
    if self.is_mutable_collection(_PREPARED) and not self.is_initializing():
      self.put_variable(_PREPARED, name, arrays)
    return arrays


def prepare(
  module: nn.Module, variables: dict[str, Any], inputs_shape: tuple[int, ...]
) -> dict[str, Any]:
  """Adds what layers compute from their parameters alone to the variables.

  A compiler computes it in every Langevin step if it is not given. The
  variables are for `module.apply` without gradients in the parameters.

  Args:
    module: Network that is built from `Conv`; other layers are left alone.
    variables: Variables of the network.
    inputs_shape: Shape of one input, without the batch axis.
  """
  # Under jit the network's output is dropped and never computed.
  _, prepared = module.apply(
    variables, jnp.zeros((1, *inputs_shape)), mutable=(_PREPARED,)
  )
  # XLA:TPU would move cheap operations back into the loop.
  return {**variables, **jax.lax.optimization_barrier(prepared)}
