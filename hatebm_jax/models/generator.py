"""The generator network G: images from latent vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops as layers
from hatebm_jax.models import sizes

# Blocks' widths are the base width over these, by image size.
_DIVISORS = {
  16: (1, 1),
  32: (1, 1, 1),
  64: (2, 4, 8, 16),
  128: (1, 2, 4, 8, 16),
}

# Of the running statistics, a training step: PyTorch's default 0.1 is here 0.9.
_MOMENTUM = 0.9


def make(
  image_size: int,
  width: int,
  channels: int = 3,
  out_factor: float = 1.0,
  norm_epsilon: float = 1e-3,
  dtype: jnp.dtype = jnp.float32,
) -> "Generator":
  """Returns the generator of the paper for an image size.

  Args:
    image_size: 16, 32, 64 or 128 (height and width in pixels).
    width: base width `ngf`: 256 at 32, 1024 at 64 and 128 (2048: large).
    channels: of the images.
    out_factor: images are `out_factor * tanh(...)`.
    norm_epsilon: of batch norm: 1e-3 in the reference, 1e-5 in torch-mimicry.
    dtype: of the computation.

  Raises:
    ConfigError: for another size, or a width that the size does not divide.
  """
  widths = sizes.widths(image_size, width, _DIVISORS)
  return Generator(width, widths, channels, out_factor, norm_epsilon, dtype)


class GeneratorBlock(nn.Module):
  """Residual block: norm, ReLU, (up), conv, norm, ReLU, conv.

  Attributes:
    features: output channels, of both convolutions.
    norm_epsilon: of batch norm.
    dtype: of the computation.
    up: double the size at the start.
    stem: the decoder's first block, on the latent itself: no norm and no ReLU
      in front.
  """

  features: int
  norm_epsilon: float
  dtype: jnp.dtype = jnp.float32
  up: bool = True
  stem: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, axis_name: str | None = None
  ) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, 2h, 2w, features]` (h, w if not up)."""

    def norm_relu(h, name):
      return nn.relu(
        nn.BatchNorm(
          use_running_average=not train,
          momentum=_MOMENTUM,
          epsilon=self.norm_epsilon,
          axis_name=axis_name,
          dtype=self.dtype,
          name=name,
        )(h)
      )

    h = x if self.stem else norm_relu(x, "norm_0")
    op = layers.up_conv3x3 if self.up else layers.conv3x3
    h = layers.Conv3x3(self.features, op=op, dtype=self.dtype, name="conv_0")(h)
    h = layers.Conv3x3(self.features, dtype=self.dtype, name="conv_1")(
      norm_relu(h, "norm_1")
    )
    if self.up or x.shape[-1] != self.features:
      # A 1x1 convolution commutes with the bilinear up: do it on the small
      # side.
      x = layers.Conv1x1(self.features, self.dtype, name="shortcut")(x)
      x = layers.upsample(x) if self.up else x
    return h + x


class Generator(nn.Module):
  """SN-GAN's residual generator with bilinear up-sampling.

  Attributes:
    base_width: channels at 4x4.
    widths: channels of each block; every block doubles the size.
    channels: of the images.
    out_factor: images are `out_factor * tanh(...)`.
    norm_epsilon: of batch norm.
    dtype: of the computation; parameters and images are float32.
  """

  base_width: int
  widths: tuple[int, ...]
  channels: int = 3
  out_factor: float = 1.0
  norm_epsilon: float = 1e-3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, z: jax.Array, train: bool = False, axis_name: str | None = None
  ) -> jax.Array:
    """Returns images of latents.

    Args:
      z: latents `[batch, latent_dim]`.
      train: use and update the batch's statistics (SN-GAN training). False,
        as Hat EBM always has it: the stored statistics.
      axis_name: with `train`, mesh axis that the batch is split over: its
        statistics are then those of the whole batch.

    Returns:
      Images `[batch, height, width, channels]`, float32, within
      `[-out_factor, out_factor]`.
    """
    x = nn.Dense(
      4 * 4 * self.base_width,
      kernel_init=nn.initializers.glorot_uniform(),
      dtype=self.dtype,
      name="dense",
    )(z)
    # Channel-major, as the reference (and torch-mimicry) lay it out.
    x = x.reshape(-1, self.base_width, 4, 4).transpose(0, 2, 3, 1)
    for i, features in enumerate(self.widths):
      x = GeneratorBlock(
        features, self.norm_epsilon, self.dtype, name=f"block_{i}"
      )(x, train, axis_name)
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=_MOMENTUM,
      epsilon=self.norm_epsilon,
      axis_name=axis_name,
      dtype=self.dtype,
      name="norm",
    )(x)
    x = layers.Conv3x3(self.channels, dtype=self.dtype, name="conv")(nn.relu(x))
    return self.out_factor * jnp.tanh(x.astype(jnp.float32))
