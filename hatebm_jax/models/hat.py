"""The hat network H: one energy for each image."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops, sizes
from hatebm_jax.models.layers import Conv

# By image size, the divisor of the base width for each block, and how many of
# the first blocks halve the size.
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
    image_size: Height and width of the images in pixels: 16, 32, 64 or 128.
    width: Base width `ngf`: 256 at 32 pixels, 1024 at 64 and 128 pixels (2048
      for the large network).
    dtype: Type of the computation.

  Raises:
    ConfigError: If the network does not exist for this size or width.
  """
  return Hat(*layout(image_size, width), dtype)


def layout(
  image_size: int, width: int, field: str = "model.width"
) -> tuple[tuple[int, ...], int]:
  """Returns the channels of each block and how many blocks halve the size.

  Args:
    image_size: Height and width of the images in pixels: 16, 32, 64 or 128.
    width: Base width `ngf` of the network.
    field: Field of the config that sets the width.

  Raises:
    ConfigError: If the network does not exist for this size or width.
  """
  widths = sizes.widths(image_size, width, _DIVISORS, field)
  return widths, _NUM_DOWNS[image_size]


def features(hat: "Hat", params: Any, x: jax.Array) -> jax.Array:
  """Returns the features of images in all blocks of a hat.

  The energy is a weighted sum of those of the last block.

  Args:
    hat: Hat.
    params: Parameters of the hat.
    x: Images in [-1, 1], `[batch, height, width, channels]`.

  Returns:
    The means over the pixels of the outputs of the blocks, after a ReLU,
    float32 `[batch, sum(hat.widths)]`.
  """
  _, found = hat.apply(
    {"params": params},
    x,
    capture_intermediates=lambda module, _: isinstance(module, HatBlock),
  )
  blocks = found["intermediates"]
  outputs = (blocks[f"block_{i}"]["__call__"][0] for i in range(len(blocks)))
  return jnp.concatenate([_pool(x) for x in outputs], axis=1)


def _pool(x: jax.Array) -> jax.Array:
  """Returns the means over the pixels after a ReLU, float32 `[b, c]`."""
  return nn.relu(x).astype(jnp.float32).mean((1, 2))


class HatBlock(nn.Module):
  """Residual block: ReLU, conv, ReLU, conv, (down).

  Attributes:
    features: Number of output channels of both convolutions.
    down: True halves the size at the end.
    stem: True for the first block, which takes the image itself. It has no
      ReLU in front, and the paper's shortcut pools before its 1x1 convolution.
    dtype: Type of the computation.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  features: int
  down: bool
  stem: bool = False
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, h/2, w/2, features]` (h, w if not down)."""
    form = conv_ops.form(self.conv_form)
    ops = form.block(self.features, self.down, self.stem)
    h = x if self.stem else nn.relu(x)
    h = Conv(self.features, ops.conv_0, self.dtype, name="conv_0")(h)
    h = Conv(self.features, ops.conv_1, self.dtype, name="conv_1")(nn.relu(h))
    if self.down or x.shape[-1] != self.features:
      x = Conv(self.features, ops.shortcut, self.dtype, name="shortcut")(x)
    return h + x


class Hat(nn.Module):
  """Hat network of the paper's appendix. It has no normalisation.

  Attributes:
    widths: Number of channels of each block.
    num_downs: Number of the first blocks that halve the size.
    dtype: Type of the computation; parameters and energies are float32.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  widths: tuple[int, ...]
  num_downs: int
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

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
        conv_form=self.conv_form,
        name=f"block_{i}",
      )(x)
    energy = nn.Dense(
      1,
      use_bias=False,
      kernel_init=nn.initializers.glorot_uniform(),
      name="head",
    )(_pool(x))
    return energy[:, 0]
