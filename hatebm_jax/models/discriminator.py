"""SN-GAN's discriminator: a hat with spectral norm on every layer.

Spectral norm (Miyato et al., ICLR 2018) divides a layer's kernel W by an
estimate of its largest singular value, sigma = u^T W v, which one power
iteration a training step improves. u and v live in the collection `spectral`.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_ops as layers
from hatebm_jax.models import hat

# The products are small, and an error of sigma is one of all outputs: bfloat16
# passes, an accelerator's default, would save nothing.
_dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


def make(
  image_size: int, width: int, dtype: jnp.dtype = jnp.float32
) -> "Discriminator":
  """Returns torch-mimicry's SN-GAN discriminator for an image size.

  Args:
    image_size: 16, 32, 64 or 128 (height and width in pixels).
    width: base width `ndf`: 128 at 32, 1024 at 64 and 128.
    dtype: of the computation.

  Raises:
    ConfigError: for another size, or a width that the size does not divide.
  """
  like = hat.make(image_size, width)
  return Discriminator(like.widths, like.num_downs, dtype)


class SpectralLayer(nn.Module):
  """Convolution or dense layer with bias; its kernel is divided by sigma.

  Its estimates of the kernel's first singular vectors are the variables `u`
  `[features]` and `v` `[*window, in]` of `spectral`. They are used and updated
  as by PyTorch's `torch.nn.utils.spectral_norm`.

  Attributes:
    features: output channels.
    op: (x, kernel) -> y.
    window: of the kernel, as in `(3, 3)`; `()` of a dense layer.
    dtype: of the computation; parameters and sigma are float32.
  """

  features: int
  op: Callable[[jax.Array, jax.Array], jax.Array]
  window: tuple[int, ...]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps `[batch, ..., in]` to `[batch, ..., features]`."""
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (*self.window, x.shape[-1], self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    kernel = kernel / self._sigma(kernel, train)
    y = self.op(x.astype(self.dtype), kernel.astype(self.dtype))
    return y + bias.astype(self.dtype)

  def _sigma(self, kernel: jax.Array, train: bool) -> jax.Array:
    """Returns sigma, after a power iteration if `train`.

    Its gradient with respect to the kernel takes u and v as constants: at the
    singular vectors that is exact.
    """
    matrix = kernel.reshape(-1, self.features)  # PyTorch's, transposed.
    fixed = jax.lax.stop_gradient(matrix)
    image = lambda u: _unit(_dot(fixed, u)).reshape(kernel.shape[:-1])
    u = self.variable("spectral", "u", self._random_unit)
    # Not random: a sigma near zero would blow up an untrained network.
    v = self.variable("spectral", "v", lambda: image(u.value))
    if train and not self.is_initializing():
      v.value = image(u.value)
      u.value = _unit(_dot(v.value.reshape(-1), fixed))
    return _dot(_dot(v.value.reshape(-1), matrix), u.value)

  def _random_unit(self) -> jax.Array:
    rng = self.make_rng("params")
    return _unit(jax.random.normal(rng, (self.features,)))


def _unit(x: jax.Array) -> jax.Array:
  """Vector of length 1; as PyTorch, epsilon 1e-12."""
  return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Dense layer or 1x1 convolution: a matrix product over the channels."""
  return x @ kernel.reshape(kernel.shape[-2:])


class DiscriminatorBlock(nn.Module):
  """Residual block of torch-mimicry: ReLU, conv, ReLU, conv, (down).

  `HatBlock` with spectral norm and, except in the stem, two differences that
  trained weights depend on: between the convolutions it has the input's width,
  and its shortcut starts from the ReLU too, which torch-mimicry computes in
  place.

  Attributes:
    features: output channels.
    down: halve the size at the end.
    stem: the first block, on the image itself: no ReLU in front.
    dtype: of the computation.
  """

  features: int
  down: bool
  stem: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps `[b, h, w, in]` to `[b, h/2, w/2, features]` (h, w if not down)."""
    layer = functools.partial(SpectralLayer, dtype=self.dtype)
    hidden = self.features if self.stem else x.shape[-1]
    x = x if self.stem else nn.relu(x)
    h = layer(hidden, layers.conv3x3, (3, 3), name="conv_0")(x, train)
    op = layers.conv3x3_down if self.down else layers.conv3x3
    h = layer(self.features, op, (3, 3), name="conv_1")(nn.relu(h), train)
    if self.down or x.shape[-1] != self.features:
      # A 1x1 convolution commutes with the pool: do it on the small side.
      x = layers.avg_pool(x) if self.down else x
      x = layer(self.features, _product, (1, 1), name="shortcut")(x, train)
    return h + x


class Discriminator(nn.Module):
  """Discriminator of SN-GAN, as torch-mimicry has it.

  Attributes:
    widths: channels of each block.
    num_downs: how many of the first blocks halve the size.
    dtype: of the computation; parameters and logits are float32.
  """

  widths: tuple[int, ...]
  num_downs: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits of images; high for real ones.

    Args:
      x: images `[batch, height, width, channels]`.
      train: one power iteration first; `spectral` must then be mutable. False:
        the stored u and v.

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
        name=f"block_{i}",
      )(x, train)
    x = nn.relu(x).astype(jnp.float32).sum((1, 2))
    return SpectralLayer(1, _product, (), name="head")(x, train)[:, 0]
