"""A hat as a choice of the config: `--config.hat.kind=small_hat`."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallHat(nn.Module):
  """One strided convolution and a linear head."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns energies `[batch]` of images `[batch, h, w, c]`."""
    x = nn.silu(nn.Conv(self.width, (4, 4), strides=4, dtype=self.dtype)(x))
    return nn.Dense(1)(x.mean((1, 2)).astype(jnp.float32))[:, 0]


def make(image_size: int, width: int, dtype: jnp.dtype) -> nn.Module:
  """Returns the hat, which does not depend on the image size."""
  del image_size
  return SmallHat(width, dtype)
