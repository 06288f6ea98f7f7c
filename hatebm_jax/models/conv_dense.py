"""The dense form of the convolutions, which is fast on a TPU.

Moving pixels costs a TPU more than multiplications do. A pooled convolution
therefore has the pool in its kernel, as in the strided form (conv_strided.py),
and the bilinear up is a product with a matrix. The values are those of the
literal form (conv_literal.py).

The first block of a hat has the largest images and the fewest channels. A TPU
computes 128 channels at once, so most of it would idle. This block therefore
works on *cells*: the four pixels of a 2x2 patch, one after the other in the
channels. The cells of an activation are cut after one row or column of zeros
has been added on each side. Cell i then has the rows 2i - 1 and 2i, and the 4x4
pixels that an output of the pooled convolution sees are 2x2 whole cells.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax.models import conv_literal, conv_strided
from hatebm_jax.models.conv_literal import SAME, VALID, convolve
from hatebm_jax.models.conv_packed import vary_like

# Up to this many pixels, one matrix for rows and columns together is faster
# than one for each.
_FEW_PIXELS = 256

# The gradient of a strided convolution takes as long with 8 images as with 16.
# With fewer images than this, the literal gradient is faster. Large images need
# this many channels for it.
_FEW_IMAGES = 16
_MANY_CHANNELS = 256


def cut(x: jax.Array) -> jax.Array:
  """Cuts an image into 2x2 cells: `[b, h, w, c]` -> `[b, h/2, w/2, 4 c]`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height // 2, width // 2, 4 * channels)


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up, then 3x3 convolution.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[3, 3, in, out]`.
  """
  return conv_literal.conv3x3(_double(x, _bilinear), kernel)


def up_conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """1x1 convolution, then bilinear up, as in the literal form.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[1, 1, in, out]`.
  """
  return _double(conv_literal.conv1x1(x, kernel), _bilinear)


def pooled_kernels(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the kernels of `pooled_conv3x3`: one for its gradient in the image.

  Args:
    kernel: Kernel `[3, 3, in, out]`.
  """
  return conv_strided.down_kernel(kernel), kernel


def pooled_conv3x3(
  x: jax.Array, kernels: tuple[jax.Array, jax.Array]
) -> jax.Array:
  """3x3 convolution, then 2x2 average pool.

  Args:
    x: Image `[batch, height, width, in]`.
    kernels: Kernels of `pooled_kernels`.
  """
  batch, height, width, channels = x.shape
  is_large = height * width > 4 * _FEW_PIXELS
  if batch >= _FEW_IMAGES or (is_large and channels < _MANY_CHANNELS):
    return conv_strided.conv3x3_down(x, kernels[0])
  return _pooled(x, *(vary_like(kernel, x) for kernel in kernels))


@jax.custom_vjp
def _pooled(x: jax.Array, kernel: jax.Array, literal: jax.Array) -> jax.Array:
  del literal  # It is for the gradient in the image.
  return conv_strided.conv3x3_down(x, kernel)


def _pooled_forward(x, kernel, literal):
  return conv_strided.conv3x3_down(x, kernel), (x, kernel, literal)


def _pooled_backward(saved, dy):
  x, kernel, literal = saved
  _, pull = jax.vjp(lambda k: conv_strided.conv3x3_down(x, k), kernel)
  _, pull_literal = jax.vjp(lambda x: conv_literal.conv3x3(x, literal), x)
  dx = pull_literal(_double(dy, _pool_gradient))[0]
  return dx, *pull(dy), jnp.zeros_like(literal)


_pooled.defvjp(_pooled_forward, _pooled_backward)


def _double(x: jax.Array, matrix: Callable[[int], np.ndarray]) -> jax.Array:
  """Doubles the size of an image by matrix products.

  Args:
    x: Image `[batch, height, width, channels]`.
    matrix: Function of a size; it returns the matrix `[2 size, size]` for one
      axis.
  """
  batch, height, width, channels = x.shape
  rows, columns = matrix(height), matrix(width)
  multiply = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  if height * width <= _FEW_PIXELS:
    both = jnp.asarray(np.kron(rows, columns), x.dtype)
    x = multiply("pq,bqc->bpc", both, x.reshape(batch, -1, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)
  x = multiply("qw,bhwc->bhqc", jnp.asarray(columns, x.dtype), x)
  return multiply("ph,bhwc->bpwc", jnp.asarray(rows, x.dtype), x)


def _bilinear(size: int) -> np.ndarray:
  """Returns the matrix `[2 size, size]` of `resample.upsample` for one axis."""
  new = np.arange(2 * size)
  near = new // 2
  beside = np.clip(near + 2 * (new % 2) - 1, 0, size - 1)
  pixels = np.eye(size)
  return 0.75 * pixels[near] + 0.25 * pixels[beside]


def _pool_gradient(size: int) -> np.ndarray:
  """Returns the matrix `[2 size, size]` of the gradient of a pool."""
  return 0.5 * np.repeat(np.eye(size), 2, axis=0)


def conv3x3_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel of `conv3x3`.

  Args:
    kernel: Kernel `[3, 3, in, out]`.

  Returns:
    Kernel `[2, 2, 4 in, 4 out]`. A cell of the result sees 4x4 pixels, and
    each of its four pixels sees 3x3 of them.
  """
  of_pixels = [
    jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in (0, 1)
    for j in (0, 1)
  ]
  return _of_cells(jnp.concatenate(of_pixels, -1))


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution of an image; the result is in cells.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `conv3x3_kernel`.

  Returns:
    Cells `[batch, height/2 + 1, width/2 + 1, 4 out]`. Their pixels outside the
    image hold numbers without a meaning; see `bias_map`.
  """
  return convolve(cut(x), kernel, SAME)


def bias_map(bias: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns the bias of `conv3x3` for each pixel.

  Pixels outside the image have the bias minus infinity, which a ReLU turns into
  the zeros that the next convolution is padded with.

  Args:
    bias: Bias `[out]`.
    shape: Shape of the image `[batch, height, width, in]`.

  Returns:
    Bias `[height/2 + 1, width/2 + 1, 4 out]`.
  """
  height, width = shape[1:3]
  inside = jnp.zeros((1, height, width, 1), bool)
  inside = jnp.pad(~inside, ((0, 0), (1, 1), (1, 1), (0, 0)))
  inside = jnp.repeat(cut(inside)[0], len(bias), axis=-1)
  return jnp.where(inside, jnp.tile(bias, 4), -jnp.inf)


def down_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel `[2, 2, 4 in, out]` of `conv3x3_down`.

  Args:
    kernel: Kernel `[3, 3, in, out]`.
  """
  return _of_cells(conv_strided.down_kernel(kernel))


def conv3x3_down(cells: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution and 2x2 average pool of an image in cells.

  Args:
    cells: Cells `[batch, height/2 + 1, width/2 + 1, 4 in]` of an image
      `[batch, height, width, in]`.
    kernel: Kernel of `down_kernel`.

  Returns:
    Image `[batch, height/2, width/2, out]`.
  """
  return convolve(cells, kernel, VALID)


def shortcut_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel `[4 in, out]` of `conv1x1_down`."""
  return jnp.tile(0.25 * kernel[0, 0], (4, 1))


def conv1x1_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """2x2 average pool and 1x1 convolution as one product for each cell.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `shortcut_kernel`.
  """
  return cut(x) @ kernel


def _of_cells(kernel: jax.Array) -> jax.Array:
  """Returns a kernel `[4, 4, in, out]` as one of cells, `[2, 2, 4 in, out]`."""
  channels_in, channels_out = kernel.shape[2:]
  kernel = kernel.reshape(2, 2, 2, 2, channels_in, channels_out)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return kernel.reshape(2, 2, 4 * channels_in, channels_out)
