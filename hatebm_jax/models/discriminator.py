"""SN-GAN's discriminator: a hat with spectral norm on every layer.

Spectral norm (Miyato et al., ICLR 2018) divides a layer's kernel W by an
estimate of its largest singular value, sigma = u^T W v. One power iteration in
each training step improves the estimate. The vectors u and v are in the
collection `spectral`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops, hat

# The products are small, and an error of sigma scales all outputs. The bfloat16
# passes that accelerators use by default would save nothing.
_dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


def make(
  image_size: int, width: int, dtype: jnp.dtype = jnp.float32
) -> "Discriminator":
  """Returns torch-mimicry's SN-GAN discriminator for an image size.

  Args:
    image_size: Height and width of the images in pixels: 16, 32, 64 or 128.
    width: Base width `ndf`: 128 at 32 pixels, 1024 at 64 and 128 pixels.
    dtype: Type of the computation.

  Raises:
    ConfigError: If the network does not exist for this size or width.
  """
  field = "sngan.discriminator_width"
  return Discriminator(*hat.layout(image_size, width, field), dtype)


_DENSE = conv_ops.Op(jnp.dot)


class SpectralLayer(nn.Module):
  """Convolution or dense layer with bias whose kernel is divided by sigma.

  The estimates of the kernel's first singular vectors are the variables `u`
  `[features]` and `v` `[*window, in]` of `spectral`. They are used and updated
  as PyTorch's `torch.nn.utils.spectral_norm` does it.

  Attributes:
    features: Number of output channels.
    op: Convolution of a form of `conv_ops`; None for a dense layer.
    dtype: Type of the computation; parameters and sigma are float32.
  """

  features: int
  op: conv_ops.Op | None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps `[batch, ..., in]` to `[batch, ..., features]`."""
    window = () if self.op is None else (self.op.window, self.op.window)
    op = _DENSE if self.op is None else self.op
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (*window, x.shape[-1] // op.pixels, self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    kernel = kernel / self._sigma(kernel, train)
    kernel = jax.tree.map(lambda a: a.astype(self.dtype), op.prepare(kernel))
    y = op.apply(x.astype(self.dtype), kernel)
    return y + op.prepare_bias(bias, x.shape).astype(self.dtype)

  def _sigma(self, kernel: jax.Array, train: bool) -> jax.Array:
    """Returns sigma, after a power iteration if `train`.

    The gradient in the kernel takes u and v as constants. This is exact at the
    singular vectors.
    """
    matrix = kernel.reshape(-1, self.features)  # PyTorch has its transpose.
    fixed = jax.lax.stop_gradient(matrix)
    image = lambda u: _unit(_dot(fixed, u)).reshape(kernel.shape[:-1])
    u = self.variable("spectral", "u", self._random_unit)
    # v is not random: a sigma near zero would blow up an untrained network.
    v = self.variable("spectral", "v", lambda: image(u.value))
    if train and not self.is_initializing():
      v.value = image(u.value)
      u.value = _unit(_dot(v.value.reshape(-1), fixed))
    return _dot(_dot(v.value.reshape(-1), matrix), u.value)

  def _random_unit(self) -> jax.Array:
    rng = self.make_rng("params")
    return _unit(jax.random.normal(rng, (self.features,)))


def _unit(x: jax.Array) -> jax.Array:
  """Returns a vector scaled to length 1, with PyTorch's epsilon 1e-12."""
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class DiscriminatorBlock(nn.Module):
  """Residual block of torch-mimicry: ReLU, conv, ReLU, conv, (down).

  It is a `HatBlock` with spectral norm. Except in the stem, it differs in two
  ways that trained weights depend on: between the convolutions it has the
  input's width, and its shortcut starts after the ReLU, because torch-mimicry
  computes this ReLU in place.

  Attributes:
    features: Number of output channels.
    down: True halves the size at the end.
    stem: True for the first block, which takes the image itself. It has no
      ReLU in front.
    dtype: Type of the computation.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  features: int
  down: bool
  stem: bool = False
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, h/2, w/2, features]` (h, w if not down)."""
    layer = functools.partial(SpectralLayer, dtype=self.dtype)
    hidden = self.features if self.stem else x.shape[-1]
    x = x if self.stem else nn.relu(x)
    form = conv_ops.form(self.conv_form)
    ops = form.block(self.features, self.down, self.stem)
    h = layer(hidden, ops.conv_0, name="conv_0")(x, train)
    h = layer(self.features, ops.conv_1, name="conv_1")(nn.relu(h), train)
    if self.down or x.shape[-1] != self.features:
      x = layer(self.features, ops.shortcut, name="shortcut")(x, train)
    return h + x


class Discriminator(nn.Module):
  """Discriminator of SN-GAN as torch-mimicry has it.

  Attributes:
    widths: Number of channels of each block.
    num_downs: Number of the first blocks that halve the size.
    dtype: Type of the computation; parameters and logits are float32.
    conv_form: Form of the convolutions; see `conv_ops`.
  """

  widths: tuple[int, ...]
  num_downs: int
  dtype: jnp.dtype = jnp.float32
  conv_form: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits of images. They are high for real images.

    Args:
      x: Images `[batch, height, width, channels]`.
      train: True makes one power iteration first; `spectral` must then be
        mutable. False uses the stored u and v.

    Returns:
      Logits `[batch]`, float32.
    """
    x = x.astype(self.dtype)
    for i, features in enumerate(self.widths):
      x = DiscriminatorBlock(
        features,
        down=i < self.num_downs,
        stem=i == 0,
        dtype=self.dtype,
        conv_form=self.conv_form,
        name=f"block_{i}",
      )(x, train)
    x = nn.relu(x).astype(jnp.float32).sum((1, 2))
    return SpectralLayer(1, None, name="head")(x, train)[:, 0]
