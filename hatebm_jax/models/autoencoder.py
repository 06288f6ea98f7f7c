"""The deterministic autoencoder that a Hat EBM is retrofitted to.

Its latents are gray images of half the size, on a sphere. The paper has it at
32 pixels; at 16, for the digits, it is the same network.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops as layers
from hatebm_jax.models import sizes
from hatebm_jax.models.generator import GeneratorBlock
from hatebm_jax.models.hat import HatBlock

# Blocks' widths are the base width over these, by image size.
_DIVISORS = {16: (1, 1, 1, 1), 32: (1, 1, 1, 1)}


def latent_shape(image_size: int) -> tuple[int, int, int]:
  """Returns the shape of one latent: `[16, 16, 1]` for images of 32 pixels."""
  return image_size // 2, image_size // 2, 1


def make_decoder(
  image_size: int,
  width: int,
  channels: int = 3,
  out_factor: float = 1.0,
  norm_epsilon: float = 1e-3,
  dtype: jnp.dtype = jnp.float32,
) -> "Decoder":
  """Returns the decoder G of the paper for an image size.

  Args:
    image_size: 16 or 32 (height and width in pixels).
    width: base width `ngf`: 256 at 32.
    channels: of the images.
    out_factor: images are `out_factor * tanh(...)`.
    norm_epsilon: of batch norm.
    dtype: of the computation.

  Raises:
    ConfigError: for another size, or a width below 1.
  """
  widths = sizes.widths(image_size, width, _DIVISORS)
  return Decoder(widths, channels, out_factor, norm_epsilon, dtype)


def make_encoder(
  image_size: int, width: int, dtype: jnp.dtype = jnp.float32
) -> "Encoder":
  """Returns the encoder I of the paper for an image size.

  Args:
    image_size: 16 or 32 (height and width in pixels).
    width: base width `ngf`: 256 at 32.
    dtype: of the computation.

  Raises:
    ConfigError: for another size, or a width below 1.
  """
  return Encoder(sizes.widths(image_size, width, _DIVISORS), dtype=dtype)


class Decoder(nn.Module):
  """Generator whose latent is a small image: stem, block up, blocks.

  Batch norm runs with its stored statistics, as everywhere in Hat EBM.

  Attributes:
    widths: channels of each block; the second doubles the size.
    channels: of the images.
    out_factor: images are `out_factor * tanh(...)`.
    norm_epsilon: of batch norm.
    dtype: of the computation; parameters and images are float32.
  """

  widths: tuple[int, ...]
  channels: int = 3
  out_factor: float = 1.0
  norm_epsilon: float = 1e-3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    """Returns images of latents.

    Args:
      z: latents `[batch, height / 2, width / 2, 1]`.

    Returns:
      Images `[batch, height, width, channels]`, float32, within
      `[-out_factor, out_factor]`.
    """
    x = z
    for i, features in enumerate(self.widths):
      x = GeneratorBlock(
        features,
        self.norm_epsilon,
        self.dtype,
        up=i == 1,
        stem=i == 0,
        name=f"block_{i}",
      )(x)
    x = nn.BatchNorm(
      use_running_average=True,
      epsilon=self.norm_epsilon,
      dtype=self.dtype,
      name="norm",
    )(x)
    x = layers.Conv3x3(self.channels, dtype=self.dtype, name="conv")(nn.relu(x))
    return self.out_factor * jnp.tanh(x.astype(jnp.float32))


class Encoder(nn.Module):
  """Latents of images: hat blocks, of which the second halves the size.

  Attributes:
    widths: channels of each block.
    latent_channels: of the latents.
    dtype: of the computation; parameters and latents are float32.
  """

  widths: tuple[int, ...]
  latent_channels: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns latents of images.

    Args:
      x: images `[batch, height, width, channels]`.

    Returns:
      Latents `[batch, height / 2, width / 2, latent_channels]`, float32, on the
      sphere (`project`).
    """
    x = x.astype(self.dtype)
    for i, features in enumerate(self.widths):
      x = HatBlock(
        features,
        down=i == 1,
        stem=i == 0,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x)
    x = layers.Conv3x3(self.latent_channels, dtype=self.dtype, name="conv")(
      nn.relu(x)
    )
    return project(x.astype(jnp.float32))


def project(z: jax.Array) -> jax.Array:
  """Projects latents to the sphere that N(0, I) concentrates on.

  z sqrt(n) / (||z|| + 1e-6), n the numbers of a latent (the reference's
  encoder).

  Args:
    z: latents `[batch, ...]`.
  """
  axes = tuple(range(1, z.ndim))
  norm = jnp.sqrt(jnp.square(z).sum(axes, keepdims=True))
  return z * (math.sqrt(math.prod(z.shape[1:])) / (norm + 1e-6))
