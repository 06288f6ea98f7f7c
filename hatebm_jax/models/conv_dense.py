"""The dense form of the convolutions, which is fast on a TPU.

Each layer is one convolution without zeros between pixels, with the resampling
in its kernel, because moving pixels costs a TPU more than multiplications do.
The values are those of the literal form (conv_literal.py). The pooled
convolutions are those of the strided form (conv_strided.py).

The first block of a hat has the largest images and the fewest channels. A TPU
computes 128 channels at once, so most of it would idle. This block therefore
works on *cells*: the four pixels of a 2x2 patch, one after the other in the
channels. The cells of an activation are cut after one row or column of zeros
has been added on each side. Cell i then has the rows 2i - 1 and 2i, and the 4x4
pixels that an output of the pooled convolution sees are 2x2 whole cells.
"""

import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_strided, resample
from hatebm_jax.models.conv_literal import SAME, VALID, convolve
from hatebm_jax.models.resample import clamp

_BILINEAR = (0.25, 0.75, 0.75, 0.25)


def cut(x: jax.Array) -> jax.Array:
  """Cuts an image into 2x2 cells: `[b, h, w, c]` -> `[b, h/2, w/2, 4 c]`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height // 2, width // 2, 4 * channels)


def up_conv3x3_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel of `up_conv3x3`, `[6, 6, in, out]`.

  Args:
    kernel: Kernel `[3, 3, in, out]`.
  """
  return _blurred(kernel)


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up and 3x3 convolution in one convolution.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `up_conv3x3_kernel`.
  """
  # This goes on with the edges for ever, but the literal form has zeros there.
  y = _convolve_up(x, kernel, SAME)
  for axis in (1, 2):
    for side in (0, -1):
      index = (slice(None),) * axis + (slice(side, side + 1 or None),)
      y = y.at[index].add(-_beyond(x, kernel, axis, side))
  return y


def _beyond(x, kernel, axis, side):
  """Returns what a row or column beyond an edge adds to the one inside."""
  pixels = _line(x, axis, side)
  # The first and the last taps see nothing but what is beyond, at a quarter.
  taps = 4 * _line(kernel, axis - 1, side)
  y = _convolve_up(pixels, taps, SAME, 3 - axis)
  if axis == 1:
    return y
  # The corners belong to the rows.
  for end in (0, -1):
    corner = 4 * _line(pixels, 1, end)[:, 0] @ _line(taps, 0, end)[0]
    index = (slice(None), slice(end, end + 1 or None))
    y = y.at[index].add(-corner[:, None])
  return y


def _line(x: jax.Array, axis: int, side: int) -> jax.Array:
  """Returns the first or the last element (0 or -1) of an axis."""
  start = side % x.shape[axis]
  return jax.lax.slice_in_dim(x, start, start + 1, axis=axis)


def up_conv1x1_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel of `up_conv1x1`, `[4, 4, in, out]`.

  Args:
    kernel: Kernel `[1, 1, in, out]`.
  """
  return _blurred(kernel)


def up_conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up and 1x1 convolution in one convolution.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `up_conv1x1_kernel`.
  """
  return _convolve_up(x, kernel, VALID)


def _convolve_up(x, kernel, padding, *axes):
  """Convolves an image with zeros between its pixels and clamped edges.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `_blurred`.
    padding: Padding along the axes.
    axes: Axes that grow, 1 and 2 if none is given.
  """
  axes = axes or (1, 2)
  for axis in axes:
    x = clamp(x, axis)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    [padding[axis - 1] if axis in axes else (0, 0) for axis in (1, 2)],
    lhs_dilation=[2 if axis in axes else 1 for axis in (1, 2)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _blurred(kernel: jax.Array) -> jax.Array:
  """Returns the kernel after a bilinear up that has put zeros between pixels.

  Args:
    kernel: Kernel `[window, window, in, out]`.

  Returns:
    Kernel `[window + 3, window + 3, in, out]`.
  """
  for axis in (0, 1):
    kernel = sum(
      weight * resample.pad(kernel, axis, i, 3 - i)
      for i, weight in enumerate(_BILINEAR)
    )
  return kernel


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
