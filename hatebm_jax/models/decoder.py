"""The decoder of the autoencoder that a Hat EBM is retrofitted to.

It is a generator whose latents are gray images of half the size. The encoder
puts them on a sphere (encoder.py). The paper has this network for 32 pixels;
for 16 pixels, the size of the digits, it is the same network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import generator, sizes

# By image size, the divisor of the base width for each block. The encoder has
# the same widths.
WIDTH_DIVISORS = {16: (1, 1, 1, 1), 32: (1, 1, 1, 1)}


def make(
  image_size: int,
  width: int,
  channels: int = 3,
  out_factor: float = 1.0,
  norm_epsilon: float = 1e-3,
  dtype: jnp.dtype = jnp.float32,
) -> "Decoder":
  """Returns the decoder of the paper for an image size.

  Args:
    image_size: Height and width of the images in pixels: 16 or 32.
    width: Base width `ngf`: 256 at 32 pixels.
    channels: Number of channels of the images.
    out_factor: Scale of the images, which are `out_factor * tanh(...)`.
    norm_epsilon: Epsilon of batch norm.
    dtype: Type of the computation.

  Raises:
    ConfigError: If the network does not exist for this size, or the width is
      below 1.
  """
  widths = sizes.widths(image_size, width, WIDTH_DIVISORS)
  return Decoder(widths, channels, out_factor, norm_epsilon, dtype)


def latent_shape(image_size: int, latent_size: int) -> tuple[int, ...]:
  """Returns the shape of one latent: `[16, 16, 1]` for images of 32 pixels."""
  del latent_size  # The size of the images decides it.
  return (image_size // 2, image_size // 2, 1)


class Decoder(nn.Module):
  """Generator whose latent is a small image: stem, block up, blocks.

  Batch norm uses its stored statistics, as everywhere in Hat EBM.

  Attributes:
    widths: Number of channels of each block. The second block doubles the
      size.
    channels: Number of channels of the images.
    out_factor: Scale of the images, which are `out_factor * tanh(...)`.
    norm_epsilon: Epsilon of batch norm.
    dtype: Type of the computation; parameters and images are float32.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  widths: tuple[int, ...]
  channels: int = 3
  out_factor: float = 1.0
  norm_epsilon: float = 1e-3
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """Returns the images of latents.

    Args:
      z: Latents `[batch, height / 2, width / 2, 1]`.

    Returns:
      Images `[batch, height, width, channels]`, float32, within
      `[-out_factor, out_factor]`.
    """
    x = z
    for i, features in enumerate(self.widths):
      x = generator.GeneratorBlock(
        features,
        self.norm_epsilon,
        self.dtype,
        up=i == 1,
        stem=i == 0,
        conv_form=self.conv_form,
        name=f"block_{i}",
      )(x)
    x = generator.norm_relu(x, "norm", self.norm_epsilon, self.dtype)
    return generator.to_images(
      x, self.channels, self.out_factor, self.dtype, self.conv_form
    )
