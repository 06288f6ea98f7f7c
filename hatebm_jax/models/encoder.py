"""The encoder of the autoencoder that a Hat EBM is retrofitted to.

Only the training of the autoencoder uses it. The decoder is in decoder.py.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops, decoder, sizes
from hatebm_jax.models.hat import HatBlock
from hatebm_jax.models.layers import Conv


def make(
  image_size: int, width: int, dtype: jnp.dtype = jnp.float32
) -> "Encoder":
  """Returns the encoder I of the paper for an image size.

  Args:
    image_size: Height and width of the images in pixels: 16 or 32.
    width: Base width `ngf`: 256 at 32 pixels.
    dtype: Type of the computation.

  Raises:
    ConfigError: If the network does not exist for this size, or the width is
      below 1.
  """
  widths = sizes.widths(image_size, width, decoder.WIDTH_DIVISORS)
  return Encoder(widths, dtype=dtype)


class Encoder(nn.Module):
  """Maps images to latents: hat blocks, of which the second halves the size.

  Attributes:
    widths: Number of channels of each block.
    latent_channels: Number of channels of the latents.
    dtype: Type of the computation; parameters and latents are float32.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  widths: tuple[int, ...]
  latent_channels: int = 1
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the latents of images.

    Args:
      x: Images `[batch, height, width, channels]`.

    Returns:
      Latents `[batch, height / 2, width / 2, latent_channels]`, float32, on the
      sphere of `project`.
    """
    x = x.astype(self.dtype)
    for i, features in enumerate(self.widths):
      x = HatBlock(
        features,
        down=i == 1,
        stem=i == 0,
        dtype=self.dtype,
        conv_form=self.conv_form,
        name=f"block_{i}",
      )(x)
    op = conv_ops.form(self.conv_form).conv3x3
    x = Conv(self.latent_channels, op, self.dtype, name="conv")(nn.relu(x))
    return project(x.astype(jnp.float32))


def project(z: jax.Array) -> jax.Array:
  """Projects latents to the sphere that N(0, I) concentrates on.

  It computes z sqrt(n) / (||z|| + 1e-6) with n the number of elements of a
  latent, as the reference's encoder does.

  Args:
    z: Latents `[batch, ...]`.
  """
  axes = tuple(range(1, z.ndim))
  norm = jnp.sqrt(jnp.square(z).sum(axes, keepdims=True))
  return z * (math.sqrt(math.prod(z.shape[1:])) / (norm + 1e-6))
