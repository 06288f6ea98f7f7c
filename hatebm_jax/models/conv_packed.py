"""The packed form of the convolutions, which is fast on a CPU.

It computes the values of the literal form (conv_literal.py) with fewer
multiplications, and its gradients stay on XLA's fast paths inside a loop. It
supports first-order reverse mode only. All functions take images as
`[batch, height, width, channels]` and kernels as `[3, 3, in, out]`.
"""

import jax
import jax.numpy as jnp

from hatebm_jax.models import conv_literal, resample
from hatebm_jax.models.conv_literal import SAME, Padding
from hatebm_jax.models.resample import clamp, ends, pad, window


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution, stride 1, zero padding that keeps the size.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[3, 3, in, out]`.

  Returns:
    Image `[batch, height, width, out]`.
  """
  return _conv3x3(x, vary_like(kernel, x))


def conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `avg_pool(conv3x3(x, kernel))`."""
  return _conv3x3_down(x, vary_like(kernel, x))


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `conv3x3(upsample(x), kernel)`."""
  return _up_conv3x3(x, vary_like(kernel, x))


@jax.custom_vjp
def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return convolve(x, kernel, SAME)


def _conv3x3_forward(x, kernel):
  return convolve(x, kernel, SAME), (x, kernel)


def _conv3x3_backward(saved, dy):
  x, kernel = saved
  dx = convolve(dy, _transpose(kernel), SAME)
  return dx, _kernel_gradient(x, dy)


_conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


# XLA:CPU computes a convolution to at most _NARROW channels on one core, if it
# has more than _TINY of them on both sides (experiments/speed tells why).
_NARROW, _TINY = 64, 16


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
  """Convolution with stride 1 and zero padding, on all cores of a CPU.

  XLA:CPU has two ways to compute a convolution. One is a library that leaves
  convolutions to few channels on one core. It is never taken if the output is
  larger than the input. So a row or column more is computed and cut off.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[window, window', in, out]`.
    padding: Rows before and after the image, then columns.
  """
  if not _runs_on_one_core(*kernel.shape[2:]):
    return conv_literal.convolve(x, kernel, padding)
  lost = [kernel.shape[i] - 1 - sum(padding[i]) for i in (0, 1)]
  axis = lost.index(min(lost))
  before, after = padding[axis]
  longer = list(padding)
  longer[axis] = before, after + lost[axis] + 1
  y = conv_literal.convolve(x, kernel, tuple(longer))
  return window(y, axis + 1, 0, x.shape[axis + 1] - lost[axis])


def _runs_on_one_core(channels_in: int, channels_out: int) -> bool:
  return channels_out <= _NARROW and min(channels_in, channels_out) > _TINY


# A pooled convolution equals a stride-2 convolution of the 2x2 box filter of
# the image. An up convolution equals the blur of a transposed stride-2
# convolution. Both need a quarter of the literal multiplications. Both are
# computed on the outer and inner parts of the large image (see resample.py).
# These are the taps of the kernel that the parts meet.
_TAPS = (slice(0, 3, 2), slice(1, 2))


@jax.custom_vjp
def _conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _conv3x3_down_forward(x, kernel)[0]


def _conv3x3_down_forward(x, kernel):
  parts = resample.split(resample.box, pad(pad(x, 1, 1, 1), 2, 1, 1))
  return _gather(parts, kernel, 0), (parts, kernel)


def _conv3x3_down_backward(saved, dy):
  parts, kernel = saved
  dparts = _scatter(dy, _transpose(kernel) * 0.25, 1)
  dx = resample.merge(resample.unbox, dparts)
  dkernel = [[_tap_gradients(p, dy) for p in row] for row in parts]
  return dx, _join_taps(dkernel)


_conv3x3_down.defvjp(_conv3x3_down_forward, _conv3x3_down_backward)


@jax.custom_vjp
def _up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  parts = _scatter(clamp(clamp(x, 1), 2), kernel, 0)
  y = resample.merge(resample.blur, parts)
  rows, columns = beyond(x, kernel)
  rows = resample.spread(rows, y.shape[1], axis=1)
  return y - rows - resample.spread(columns, y.shape[2], axis=2)


def _up_conv3x3_forward(x, kernel):
  return _up_conv3x3(x, kernel), (x, kernel)


def _up_conv3x3_backward(saved, dy):
  x, kernel = saved
  dparts = resample.split(resample.unblur, pad(pad(dy, 1, 3, 3), 2, 3, 3))
  dx = _gather(dparts, _transpose(kernel), 1)
  clamped = clamp(clamp(x, 1), 2)
  dkernel = [[_tap_gradients(clamped, p) for p in row] for row in dparts]
  _, pull = jax.vjp(beyond, x, kernel)
  dx_beyond, dkernel_beyond = pull((-ends(dy, 1), -ends(dy, 2)))
  dx = resample.unclamp(resample.unclamp(dx, 1), 2) + dx_beyond
  return dx, _join_taps(dkernel) + dkernel_beyond


_up_conv3x3.defvjp(_up_conv3x3_forward, _up_conv3x3_backward)


def _gather(parts: resample.Parts, kernel: jax.Array, margin: int) -> jax.Array:
  """Stride-2 convolution of an image that is given as its parts."""
  margins = ((margin, margin), (0, 0))
  return sum(
    convolve(parts[i][j], kernel[_TAPS[i], _TAPS[j]], (margins[i], margins[j]))
    for i in (0, 1)
    for j in (0, 1)
  )


def _scatter(x: jax.Array, kernel: jax.Array, margin: int) -> resample.Parts:
  """Transposed stride-2 convolution whose result is given as its parts."""
  margins = ((margin, margin), (0, 0))
  return [
    [
      convolve(x, kernel[_TAPS[i], _TAPS[j]], (margins[i], margins[j]))
      for j in (0, 1)
    ]
    for i in (0, 1)
  ]


def _join_taps(parts: resample.Parts) -> jax.Array:
  """Returns the kernel `[3, 3, in, out]` of its four parts."""

  def join(outer, inner, axis):
    first, last = (window(outer, axis, i, 1) for i in (0, 1))
    return jnp.concatenate([first, inner, last], axis)

  return join(*(join(*row, axis=1) for row in parts), axis=0)


def beyond(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns what pixels beyond the edges would add to `up_conv3x3`.

  `_up_conv3x3` blurs as if the edges went on for ever, but the convolution has
  zeros there. The difference lies in the outermost rows and columns.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel `[3, 3, in, out]`.

  Returns:
    First and last row `[batch, 2, 2 width, out]`, and first and last column
    `[batch, 2 height, 2, out]`.
  """

  def line(pixels, taps, axis):
    size = pixels.shape[axis] - 2
    patches = [window(pixels, axis, i, size) for i in range(3)]
    taps = taps.reshape(-1, taps.shape[-1])
    return jnp.concatenate(patches, -1) @ taps

  # The corners belong to the rows: the columns have zeros there.
  rows = clamp(resample.double(ends(x, 1), 2), 2)
  columns = pad(resample.double(ends(x, 2), 1), 1, 1, 1)
  top, bottom = line(rows[:, :1], kernel[0], 2), line(rows[:, 1:], kernel[2], 2)
  left = line(columns[:, :, :1], kernel[:, 0], 1)
  right = line(columns[:, :, 1:], kernel[:, 2], 1)
  return (
    jnp.concatenate([top, bottom], 1),
    jnp.concatenate([left, right], 2),
  )


def _kernel_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Returns the gradient of `conv_literal.conv3x3` in its kernel.

  This gradient is a convolution whose kernel is as large as the image. Five
  things keep it on XLA:CPU's fast path. The arrays are transposed by hand: in a
  loop, XLA does not do it itself. The input is computed before it is
  transposed, because what XLA fuses into a transposition takes several times
  as long. The zeros are the convolution's own padding: with an image that is
  padded before, it takes up to 3 times as long. The array with fewer channels
  is the one that is padded: for 64 channels to 3, it takes a third of the time.
  What runs on one core is computed for two halves of the batch, which XLA can
  run beside each other.

  Args:
    x: Input `[batch, height, width, in]` of the forward convolution.
    dy: Gradient `[batch, height, width, out]` in its output.

  Returns:
    Gradient `[3, 3, in, out]` in the kernel.
  """
  if dy.shape[3] < x.shape[3]:
    reverse = _kernel_gradient(dy, x)
    return reverse[::-1, ::-1].swapaxes(2, 3)
  x = jax.lax.optimization_barrier(x).transpose(3, 1, 2, 0)
  dy = dy.transpose(1, 2, 0, 3)
  parts = 2 if _runs_on_one_core(dy.shape[2], dy.shape[3]) else 1
  dkernel = sum(
    conv_literal.convolve(*halves, SAME)
    for halves in zip(
      jnp.array_split(x, parts, axis=3),
      jnp.array_split(dy, parts, axis=2),
      strict=True,
    )
  )
  return dkernel.transpose(1, 2, 0, 3)


def _tap_gradients(x: jax.Array, dy: jax.Array) -> jax.Array:
  """Returns the gradient of a convolution with 1 or 4 taps in its kernel.

  With so few taps a CPU is fastest with one matrix product for each.

  Args:
    x: Input `[batch, height, width, in]` of the forward convolution, which is
      not padded.
    dy: Gradient `[batch, height_out, width_out, out]` in its output.

  Returns:
    Gradient `[taps, taps, in, out]` in the kernel.
  """
  height, width = dy.shape[1:3]
  taps = x.shape[1] - height + 1, x.shape[2] - width + 1
  dy = dy.reshape(-1, dy.shape[3])
  products = [
    window(window(x, 1, i, height), 2, j, width).reshape(len(dy), -1).T @ dy
    for i in range(taps[0])
    for j in range(taps[1])
  ]
  return jnp.concatenate(products).reshape(*taps, x.shape[3], -1)


def _transpose(kernel: jax.Array) -> jax.Array:
  """Returns the kernel of the input gradient.

  Its taps are reversed, and its inputs and outputs are exchanged. The barrier
  keeps XLA:CPU from folding the reversal into the convolution, which would
  then leave its fast path: in a loop it reaches 46 GFLOP/s without the barrier
  and 158 with it.
  """
  return jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))


def vary_like(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """Marks a kernel as varying over the mesh axes that `x` varies over.

  Within `shard_map` a `custom_vjp` must return cotangents of its arguments'
  types. The transpose of this addition sums the kernel's cotangent over the
  devices. Elsewhere the addition does nothing, and XLA drops it.
  """
  return kernel + jnp.zeros_like(x, shape=())
