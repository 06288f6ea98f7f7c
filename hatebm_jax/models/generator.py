"""The generator network G of the paper: images from latent vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops, sizes
from hatebm_jax.models.layers import Conv

# By image size, the divisor of the base width for each block.
_DIVISORS = {
  16: (1, 1),
  32: (1, 1, 1),
  64: (2, 4, 8, 16),
  128: (1, 2, 4, 8, 16),
}

# Momentum of the running statistics. PyTorch's default 0.1 is 0.9 in Flax.
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
    image_size: Height and width of the images in pixels: 16, 32, 64 or 128.
    width: Base width `ngf`: 256 at 32 pixels, 1024 at 64 and 128 pixels (2048
      for the large network).
    channels: Number of channels of the images.
    out_factor: Scale of the images, which are `out_factor * tanh(...)`.
    norm_epsilon: Epsilon of batch norm: 1e-3 in the reference, 1e-5 in
      torch-mimicry.
    dtype: Type of the computation.

  Raises:
    ConfigError: If the network does not exist for this size or width.
  """
  widths = sizes.widths(image_size, width, _DIVISORS)
  return Generator(width, widths, channels, out_factor, norm_epsilon, dtype)


def latent_shape(image_size: int, latent_size: int) -> tuple[int, ...]:
  """Returns the shape of one latent: a vector, `[latent_size]`."""
  del image_size  # It does not matter here.
  return (latent_size,)


def norm_relu(
  x: jax.Array,
  name: str,
  epsilon: float,
  dtype: jnp.dtype,
  train: bool = False,
  axis_name: str | None = None,
) -> jax.Array:
  """Applies batch norm and ReLU inside a module's compact method.

  Args:
    x: Activations `[batch, height, width, channels]`.
    name: Name of the norm in the module's variables.
    epsilon: Epsilon of batch norm.
    dtype: Type of the computation.
    train: True uses and updates the batch's statistics; False uses the stored
      ones.
    axis_name: Mesh axis that the batch is split over, if `train`. The
      statistics are then those of the whole batch.
  """
  norm = nn.BatchNorm(
    use_running_average=not train,
    momentum=_MOMENTUM,
    epsilon=epsilon,
    axis_name=axis_name,
    dtype=dtype,
    name=name,
  )
  return nn.relu(norm(x))


def to_images(
  x: jax.Array,
  channels: int,
  out_factor: float,
  dtype: jnp.dtype,
  conv_form: str,
) -> jax.Array:
  """Makes images of the last activations inside a module's compact method.

  Args:
    x: Activations `[batch, height, width, features]` after norm and ReLU.
    channels: Number of channels of the images.
    out_factor: Scale of the images, which are `out_factor * tanh(...)`.
    dtype: Type of the computation.
    conv_form: Form of the convolution; see `conv_ops`.

  Returns:
    Images `[batch, height, width, channels]`, float32.
  """
  op = conv_ops.form(conv_form).conv3x3
  x = Conv(channels, op, dtype, name="conv")(x)
  return out_factor * jnp.tanh(x.astype(jnp.float32))


class GeneratorBlock(nn.Module):
  """Residual block: norm, ReLU, (up), conv, norm, ReLU, conv.

  Attributes:
    features: Number of output channels of both convolutions.
    norm_epsilon: Epsilon of batch norm.
    dtype: Type of the computation.
    up: True doubles the size at the start.
    stem: True for the decoder's first block, which takes the latent itself. It
      has no norm and no ReLU in front.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  features: int
  norm_epsilon: float
  dtype: jnp.dtype = jnp.float32
  up: bool = True
  stem: bool = False
  conv_form: str = "auto"

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, axis_name: str | None = None
  ) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, 2h, 2w, features]` (h, w if not up)."""

    def normed(h, name):
      return norm_relu(h, name, self.norm_epsilon, self.dtype, train, axis_name)

    form = conv_ops.form(self.conv_form)
    h = x if self.stem else normed(x, "norm_0")
    op = form.up_conv3x3 if self.up else form.conv3x3
    h = Conv(self.features, op, self.dtype, name="conv_0")(h)
    h = normed(h, "norm_1")
    h = Conv(self.features, form.conv3x3, self.dtype, name="conv_1")(h)
    if self.up or x.shape[-1] != self.features:
      op = form.up_conv1x1 if self.up else form.conv1x1
      x = Conv(self.features, op, self.dtype, name="shortcut")(x)
    return h + x


class Generator(nn.Module):
  """SN-GAN's residual generator with bilinear up-sampling.

  Attributes:
    base_width: Number of channels at 4x4 pixels.
    widths: Number of channels of each block. Every block doubles the size.
    channels: Number of channels of the images.
    out_factor: Scale of the images, which are `out_factor * tanh(...)`.
    norm_epsilon: Epsilon of batch norm.
    dtype: Type of the computation; parameters and images are float32.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  base_width: int
  widths: tuple[int, ...]
  channels: int = 3
  out_factor: float = 1.0
  norm_epsilon: float = 1e-3
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(
    self, z: jax.Array, train: bool = False, axis_name: str | None = None
  ) -> jax.Array:
    """Returns the images of latents.

    Args:
      z: Latents `[batch, latent_size]`.
      train: True uses and updates the batch's statistics, as SN-GAN's training
        does. False uses the stored statistics, as Hat EBM always does.
      axis_name: Mesh axis that the batch is split over, if `train`. The
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
    # The layout is channel-major, as in the reference and in torch-mimicry.
    x = x.reshape(-1, self.base_width, 4, 4).transpose(0, 2, 3, 1)
    for i, features in enumerate(self.widths):
      x = GeneratorBlock(
        features,
        self.norm_epsilon,
        self.dtype,
        conv_form=self.conv_form,
        name=f"block_{i}",
      )(x, train, axis_name)
    x = norm_relu(x, "norm", self.norm_epsilon, self.dtype, train, axis_name)
    return to_images(
      x, self.channels, self.out_factor, self.dtype, self.conv_form
    )
