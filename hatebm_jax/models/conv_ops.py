"""Convolutions and resampling that the networks are built from.

All functions take images as `[batch, height, width, channels]`. The
`*_literal` functions say what is computed; the plain names compute the same
values with fewer multiplications, and with gradients that stay on XLA's fast
paths inside a loop. First-order reverse mode only.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_Padding = tuple[tuple[int, int], tuple[int, int]]
_SAME = ((1, 1), (1, 1))
_VALID = ((0, 0), (0, 0))

_literal = contextvars.ContextVar("literal", default=False)


@contextlib.contextmanager
def literal() -> Iterator[None]:
  """Within it, networks are traced with the literal formulations.

  For benchmarks and tests. It acts when a function is traced: a function that
  is already compiled stays as it is.
  """
  token = _literal.set(True)
  try:
    yield
  finally:
    _literal.reset(token)


def conv3x3_literal(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution, stride 1, zero padding that keeps the size."""
  return _conv(x, kernel, _SAME)


def conv3x3_down_literal(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolution at full size, then 2x2 average pool."""
  return avg_pool(conv3x3_literal(x, kernel))


def up_conv3x3_literal(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up, then convolution at full size."""
  return conv3x3_literal(upsample(x), kernel)


def avg_pool(x: jax.Array) -> jax.Array:
  """Averages 2x2 patches: `[b, h, w, c]` -> `[b, h/2, w/2, c]`."""
  batch, height, width, channels = x.shape
  patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return patches.mean((2, 4))


def upsample(x: jax.Array) -> jax.Array:
  """Doubles the size bilinearly: `[b, h, w, c]` -> `[b, 2h, 2w, c]`.

  Half-pixel centres, edges clamped (TensorFlow 2's and PyTorch's
  `align_corners=False`): new pixels are 3/4 of the nearest old pixel and 1/4 of
  the next nearest, along each axis.
  """
  return _weave(_split(_bilinear, _clamp(_clamp(x, 1), 2)))


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution, stride 1, zero padding that keeps the size.

  Args:
    x: `[batch, height, width, in]`.
    kernel: `[3, 3, in, out]`.

  Returns:
    `[batch, height, width, out]`.
  """
  if _literal.get():
    return conv3x3_literal(x, kernel)
  return _conv3x3(x, _vary_like(kernel, x))


def conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`avg_pool(conv3x3(x, kernel))`."""
  if _literal.get():
    return conv3x3_down_literal(x, kernel)
  return _conv3x3_down(x, _vary_like(kernel, x))


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv3x3(upsample(x), kernel)`."""
  if _literal.get():
    return up_conv3x3_literal(x, kernel)
  return _up_conv3x3(x, _vary_like(kernel, x))


@jax.custom_vjp
def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return conv3x3_literal(x, kernel)


def _conv3x3_forward(x, kernel):
  return conv3x3_literal(x, kernel), (x, kernel)


def _conv3x3_backward(saved, dy):
  x, kernel = saved
  dx = _conv(dy, _transpose(kernel), _SAME)
  return dx, _kernel_gradient(x, dy, _SAME)


_conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


# A pooled convolution is a stride-2 convolution of the 2x2 box filter of the
# image; an up convolution is the blur of a transposed stride-2 convolution.
# Either way a quarter of the literal multiplications. Both are computed on the
# `parts` of the large image: in parts[i][j], i for rows and j for columns, 0
# means the pixels that meet taps 0 and 2 of the kernel, 1 those that meet 1.
_TAPS = (slice(0, 3, 2), slice(1, 2))


@jax.custom_vjp
def _conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _conv3x3_down_forward(x, kernel)[0]


def _conv3x3_down_forward(x, kernel):
  parts = _split(_box, _pad(_pad(x, 1, 1, 1), 2, 1, 1))
  return _gather(parts, kernel, 0), (parts, kernel)


def _conv3x3_down_backward(saved, dy):
  parts, kernel = saved
  dparts = _scatter(dy, _transpose(kernel) * 0.25, 1)
  dx = _merge(_unbox, dparts)
  dkernel = [[_kernel_gradient(p, dy, _VALID) for p in row] for row in parts]
  return dx, _join_taps(dkernel)


_conv3x3_down.defvjp(_conv3x3_down_forward, _conv3x3_down_backward)


@jax.custom_vjp
def _up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  parts = _scatter(_clamp(_clamp(x, 1), 2), kernel, 0)
  y = _merge(_blur, parts)
  rows, columns = _beyond(x, kernel)
  return y - _spread(rows, y, axis=1) - _spread(columns, y, axis=2)


def _up_conv3x3_forward(x, kernel):
  return _up_conv3x3(x, kernel), (x, kernel)


def _up_conv3x3_backward(saved, dy):
  x, kernel = saved
  dparts = _split(_unblur, _pad(_pad(dy, 1, 3, 3), 2, 3, 3))
  dx = _gather(dparts, _transpose(kernel), 1)
  clamped = _clamp(_clamp(x, 1), 2)
  dkernel = [
    [_kernel_gradient(clamped, p, _VALID) for p in row] for row in dparts
  ]
  _, pull = jax.vjp(_beyond, x, kernel)
  dx_beyond, dkernel_beyond = pull((-_ends(dy, 1), -_ends(dy, 2)))
  dx = _unclamp(_unclamp(dx, 1), 2) + dx_beyond
  return dx, _join_taps(dkernel) + dkernel_beyond


_up_conv3x3.defvjp(_up_conv3x3_forward, _up_conv3x3_backward)


def _gather(parts, kernel: jax.Array, pad: int) -> jax.Array:
  """Stride-2 convolution of an image given as its parts."""
  pads = ((pad, pad), (0, 0))
  return sum(
    _conv(parts[i][j], kernel[_TAPS[i], _TAPS[j]], (pads[i], pads[j]))
    for i in (0, 1)
    for j in (0, 1)
  )


def _scatter(x: jax.Array, kernel: jax.Array, pad: int):
  """Transposed stride-2 convolution, as its parts: four small convolutions."""
  pads = ((pad, pad), (0, 0))
  return [
    [_conv(x, kernel[_TAPS[i], _TAPS[j]], (pads[i], pads[j])) for j in (0, 1)]
    for i in (0, 1)
  ]


def _join_taps(parts) -> jax.Array:
  """Kernel `[3, 3, in, out]` of its four parts."""

  def join(outer, inner, axis):
    first, last = (_window(outer, axis, i, 1) for i in (0, 1))
    return jnp.concatenate([first, inner, last], axis)

  return join(*(join(*row, axis=1) for row in parts), axis=0)


def _split(function, x: jax.Array):
  """Parts of an image from a function that halves one axis."""
  return [function(rows, 2) for rows in function(x, 1)]


def _merge(function, parts) -> jax.Array:
  """An image from its parts and a function that joins those of one axis.

  Alternates the pixels at the end only: half the time of doing it per axis.
  """
  columns = zip(*(function(*row, axis=2) for row in parts), strict=True)
  return _weave(zip(*(function(*c, axis=1) for c in columns), strict=True))


def _weave(parts) -> jax.Array:
  """An image from its even and odd pixels, parts[row][column]."""
  return _interleave(*(_interleave(*row, axis=2) for row in parts), axis=1)


def _box(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Means of neighbours on an axis (padded by 1), as two parts."""
  size = x.shape[axis]
  return (
    0.5 * (_every_other(x, axis, 0, size) + _every_other(x, axis, 1, size)),
    0.5
    * (_every_other(x, axis, 1, size - 1) + _every_other(x, axis, 2, size - 1)),
  )


def _unbox(outer, inner, axis: int) -> tuple[jax.Array, jax.Array]:
  """Transpose of `_box` but for its factor: even and odd pixels."""
  size = inner.shape[axis]
  return _window(outer, axis, 0, size) + inner, (
    _window(outer, axis, 1, size) + inner
  )


def _blur(outer, inner, axis: int) -> tuple[jax.Array, jax.Array]:
  """Blurs by (1/4, 3/4, 3/4, 1/4) on an axis: even and odd pixels."""
  size = inner.shape[axis] - 2
  o = [_window(outer, axis, i, size) for i in range(2)]
  i = [_window(inner, axis, i, size) for i in range(3)]
  return (
    0.75 * (o[0] + i[1]) + 0.25 * (o[1] + i[0]),
    0.75 * (o[1] + i[1]) + 0.25 * (o[0] + i[2]),
  )


def _unblur(y: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Transpose of `_blur`, of an image that is padded by 3 on the axis."""
  size = y.shape[axis]
  o = [_every_other(y, axis, i, size - 4 + i) for i in range(1, 5)]
  i = [_every_other(y, axis, i, size - 3 + i) for i in range(4)]
  return (
    0.75 * (o[1] + o[2]) + 0.25 * (o[0] + o[3]),
    0.75 * (i[1] + i[2]) + 0.25 * (i[0] + i[3]),
  )


def _bilinear(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Even and odd pixels of the bilinear up, of a clamped axis."""
  size = x.shape[axis] - 2
  near = 0.75 * _window(x, axis, 1, size)
  return (
    near + 0.25 * _window(x, axis, 0, size),
    near + 0.25 * _window(x, axis, 2, size),
  )


def _double(x: jax.Array, axis: int) -> jax.Array:
  """Bilinear up of one axis."""
  return _interleave(*_bilinear(_clamp(x, axis), axis), axis)


def _beyond(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """What pixels beyond the edges would add to `up_conv3x3`.

  `_up_conv3x3` blurs as if the edges went on for ever, where the convolution
  has zeros: this is the difference, in the outermost rows and columns.

  Args:
    x: `[batch, height, width, in]`.
    kernel: `[3, 3, in, out]`.

  Returns:
    First and last row `[batch, 2, 2 width, out]`, first and last column
    `[batch, 2 height, 2, out]`.
  """

  def line(pixels, taps, axis):
    size = pixels.shape[axis] - 2
    patches = [_window(pixels, axis, i, size) for i in range(3)]
    taps = taps.reshape(-1, taps.shape[-1])
    return jnp.concatenate(patches, -1) @ taps

  # The corners belong to the rows: the columns have zeros there.
  rows = _clamp(_double(_ends(x, 1), 2), 2)
  columns = _pad(_double(_ends(x, 2), 1), 1, 1, 1)
  top, bottom = line(rows[:, :1], kernel[0], 2), line(rows[:, 1:], kernel[2], 2)
  left = line(columns[:, :, :1], kernel[:, 0], 1)
  right = line(columns[:, :, 1:], kernel[:, 2], 1)
  return (
    jnp.concatenate([top, bottom], 1),
    jnp.concatenate([left, right], 2),
  )


def _spread(ends: jax.Array, like: jax.Array, axis: int) -> jax.Array:
  """The inverse of `_ends`: zeros between."""
  config = [(0, 0, 0)] * 4
  config[axis] = (0, 0, like.shape[axis] - 2)
  return jax.lax.pad(ends, jnp.zeros((), ends.dtype), config)


def _ends(x: jax.Array, axis: int) -> jax.Array:
  """First and last element of an axis."""
  size = x.shape[axis]
  first, last = _window(x, axis, 0, 1), _window(x, axis, size - 1, 1)
  return jnp.concatenate([first, last], axis)


def _clamp(x: jax.Array, axis: int) -> jax.Array:
  """Repeats the first and the last element of an axis once."""
  size = x.shape[axis]
  first, last = _window(x, axis, 0, 1), _window(x, axis, size - 1, 1)
  return jnp.concatenate([first, x, last], axis)


def _unclamp(x: jax.Array, axis: int) -> jax.Array:
  """Transpose of `_clamp`."""
  size = x.shape[axis] - 2
  inside = jax.lax.slice_in_dim(x, 1, size + 1, axis=axis)
  first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(x, size + 1, size + 2, axis=axis)
  return inside + _pad(first, axis, 0, size - 1) + _pad(last, axis, size - 1, 0)


def _pad(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
  config = [(0, 0, 0)] * 4
  config[axis] = (before, after, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
  """Alternates the elements of two arrays along an axis."""
  shape = list(even.shape)
  shape[axis] *= 2
  return jnp.stack([even, odd], axis + 1).reshape(shape)


def _every_other(x: jax.Array, axis: int, start: int, stop: int) -> jax.Array:
  return jax.lax.slice_in_dim(x, start, stop, stride=2, axis=axis)


def _window(x: jax.Array, axis: int, start: int, size: int) -> jax.Array:
  return jax.lax.slice_in_dim(x, start, start + size, axis=axis)


def _kernel_gradient(
  x: jax.Array, dy: jax.Array, padding: _Padding
) -> jax.Array:
  """Gradient of a stride-1 convolution with respect to its kernel.

  It is a convolution whose kernel, `dy`, is as large as the image: right for an
  accelerator, and on a CPU for small ones. Otherwise a CPU is faster with one
  matrix product a tap. Convolution -> products, GFLOP/s on 2 cores of an Intel
  Xeon (AVX-512), jax 0.10.2, as `[batch, size, size, channels]`: 46 -> 178 at
  [8, 32, 32, 256], 161 -> 198 at [8, 16, 16, 256], 45 -> 111 at
  [32, 16, 16, 128], but 152 -> 67 at [32, 8, 8, 64], 69 -> 58 at
  [32, 16, 16, 32].

  Args:
    x: `[batch, height, width, in]`, of the forward convolution.
    dy: `[batch, height_out, width_out, out]`.
    padding: of the forward convolution.

  Returns:
    `[taps, taps, in, out]`.
  """
  x = _pad(_pad(x, 1, *padding[0]), 2, *padding[1])
  small = x.shape[3] < 128 and dy.size <= 2**18
  on_cpu = (
    _kernel_gradient_as_convolution
    if small and x.shape[3] >= 16
    else _kernel_gradient_as_products
  )
  return jax.lax.platform_dependent(
    x, dy, cpu=on_cpu, default=_kernel_gradient_as_convolution
  )


def _kernel_gradient_as_convolution(x: jax.Array, dy: jax.Array) -> jax.Array:
  # Transposed by hand: inside a loop XLA:CPU falls to 3 GFLOP/s on the
  # convolution that JAX makes of it, as it does not see its canonical form.
  dkernel = _conv(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), _VALID)
  return dkernel.transpose(1, 2, 0, 3)


def _kernel_gradient_as_products(x: jax.Array, dy: jax.Array) -> jax.Array:
  (height, width), channels = dy.shape[1:3], x.shape[3]
  shape = x.shape[1] - height + 1, x.shape[2] - width + 1, channels, -1
  windows = [
    _window(_window(x, 1, i, height), 2, j, width)
    for i in range(shape[0])
    for j in range(shape[1])
  ]
  if channels < 16:
    # One product for all taps: 2 times faster from 3 channels, and the
    # patches, 9 times the image, are small.
    windows = [jnp.concatenate(windows, -1)]
  dy = dy.reshape(-1, dy.shape[3])
  products = [w.reshape(len(dy), -1).T @ dy for w in windows]
  return jnp.concatenate(products).reshape(shape)


def _conv(x: jax.Array, kernel: jax.Array, padding: _Padding) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS
  )


def _transpose(kernel: jax.Array) -> jax.Array:
  """Kernel of the input gradient: taps reversed, in and out exchanged.

  The barrier keeps XLA:CPU from folding the reversal into the convolution,
  which then leaves its fast path: 46 GFLOP/s without it in a loop, 158 with it.
  """
  return jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))


def _vary_like(kernel: jax.Array, x: jax.Array) -> jax.Array:
  """Marks a kernel as varying over the mesh axes that `x` varies over.

  Within `shard_map` a `custom_vjp` must return cotangents of its arguments'
  types; the transpose of this addition sums the kernel's over the devices.
  Elsewhere it is nothing, and XLA drops it.
  """
  return kernel + jnp.zeros_like(x, shape=())


class Conv3x3(nn.Module):
  """3x3 convolution with bias; `op` says what is fused with it.

  Attributes:
    features: output channels.
    op: `conv3x3`, `conv3x3_down` or `up_conv3x3`.
    dtype: of the computation; parameters are float32.
  """

  features: int
  op: Callable[[jax.Array, jax.Array], jax.Array] = conv3x3
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, in]` to `[..., features]`."""
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (3, 3, x.shape[-1], self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    y = self.op(x.astype(self.dtype), kernel.astype(self.dtype))
    return y + bias.astype(self.dtype)


class Conv1x1(nn.Module):
  """1x1 convolution with bias: a matrix product over the channels."""

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, in]` to `[..., features]`."""
    kernel = self.param(
      "kernel",
      nn.initializers.glorot_uniform(),
      (1, 1, x.shape[-1], self.features),
    )
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
    y = x.astype(self.dtype) @ kernel[0, 0].astype(self.dtype)
    return y + bias.astype(self.dtype)
