"""The hat network H: one energy an image."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops as layers
from hatebm_jax.models import sizes

# Blocks' widths are the base width over these, by image size.
_DIVISORS = {
  16: (1, 1, 1, 1),
  32: (1, 1, 1, 1),
  64: (16, 8, 4, 2, 1),
  128: (16, 8, 4, 2, 1, 1),
}
_NUM_DOWNS = {16: 2, 32: 2, 64: 5, 128: 5}


def make(image_size: int, width: int, dtype: jnp.dtype = jnp.float32) -> "Hat":
  """Returns the hat of the paper for an image size.

  Args:
    image_size: 16, 32, 64 or 128 (height and width in pixels).
    width: base width `ngf`: 256 at 32, 1024 at 64 and 128 (2048: large).
    dtype: of the computation.

  Raises:
    ConfigError: for another size, or a width that the size does not divide.
  """
  widths = sizes.widths(image_size, width, _DIVISORS)
  return Hat(widths, _NUM_DOWNS[image_size], dtype)


class HatBlock(nn.Module):
  """Residual block: ReLU, conv, ReLU, conv, (down).

  Attributes:
    features: output channels, of both convolutions.
    down: halve the size at the end.
    stem: the first block, on the image itself: no ReLU in front, and the
      shortcut pools before its 1x1 convolution.
    dtype: of the computation.
  """

  features: int
  down: bool
  stem: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, h/2, w/2, features]` (h, w if not down)."""
    h = x if self.stem else nn.relu(x)
    h = layers.Conv3x3(self.features, dtype=self.dtype, name="conv_0")(h)
    op = layers.conv3x3_down if self.down else layers.conv3x3
    h = layers.Conv3x3(self.features, op=op, dtype=self.dtype, name="conv_1")(
      nn.relu(h)
    )
    if self.down or x.shape[-1] != self.features:
      # A 1x1 convolution commutes with the pool: do it on the small side,
      # also where the paper's block convolves first.
      x = layers.avg_pool(x) if self.down else x
      x = layers.Conv1x1(self.features, self.dtype, name="shortcut")(x)
    return h + x


class Hat(nn.Module):
  """Hat network (spec of the paper's appendix; no normalisation).

  Attributes:
    widths: channels of each block.
    num_downs: how many of the first blocks halve the size.
    dtype: of the computation; parameters and energies are float32.
  """

  widths: tuple[int, ...]
  num_downs: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns energies `[batch]`, float32, of images `[batch, h, w, c]`."""
    x = x.astype(self.dtype)
    for i, features in enumerate(self.widths):
      x = HatBlock(
        features,
        down=i < self.num_downs,
        stem=i == 0,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x)
    x = nn.relu(x).astype(jnp.float32).mean((1, 2))
    energy = nn.Dense(
      1,
      use_bias=False,
      kernel_init=nn.initializers.glorot_uniform(),
      name="head",
    )(x)
    return energy[:, 0]
