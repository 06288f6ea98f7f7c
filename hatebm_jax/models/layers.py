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
  for axis in (1, 2):
    size = x.shape[axis]
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
    padded = jnp.concatenate([first, x, last], axis)
    before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    x = _interleave(0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after, axis)
  return x


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
  return conv3x3(upsample(x), kernel)


@jax.custom_vjp
def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return conv3x3_literal(x, kernel)


def _conv3x3_forward(x, kernel):
  return conv3x3_literal(x, kernel), (x, kernel)


def _conv3x3_backward(saved, dy):
  x, kernel = saved
  dx = _conv(dy, _transpose(kernel), _SAME)
  _, pull = jax.vjp(lambda k: conv3x3_literal(x, k), kernel)
  return dx, *pull(dy)


_conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


@jax.custom_vjp
def _conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _conv(_box(x), kernel, _VALID, stride=2)


def _conv3x3_down_forward(x, kernel):
  boxed = _box(x)
  return _conv(boxed, kernel, _VALID, stride=2), (boxed, kernel)


def _conv3x3_down_backward(saved, dy):
  boxed, kernel = saved
  # The gradient of a pixel of `boxed` has the taps of its parity: four small
  # convolutions instead of one of an image that is zeros to three quarters.
  (even, odd), (after, at) = (slice(0, 3, 2), slice(1, 2)), ((1, 1), (0, 0))
  taps = _transpose(kernel) * 0.25
  parts = [
    [
      _conv(dy, taps[rows, columns], (pad_rows, pad_columns))
      for columns, pad_columns in ((even, after), (odd, at))
    ]
    for rows, pad_rows in ((even, after), (odd, at))
  ]
  parts = [_unbox(*row, axis=2) for row in parts]
  _, pull = jax.vjp(lambda k: _conv(boxed, k, _VALID, stride=2), kernel)
  return _unbox(*parts, axis=1), *pull(dy)


_conv3x3_down.defvjp(_conv3x3_down_forward, _conv3x3_down_backward)


def _box(x: jax.Array) -> jax.Array:
  """Averages 2x2 patches at stride 1, zeros around: `[b, h+1, w+1, c]`."""
  for axis in (1, 2):
    none = (0, 0, 0)
    before = [none] * 4
    after = [none] * 4
    before[axis], after[axis] = (1, 0, 0), (0, 1, 0)
    zero = jnp.zeros((), x.dtype)
    x = 0.5 * (jax.lax.pad(x, zero, before) + jax.lax.pad(x, zero, after))
  return x


def _unbox(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
  """Transpose of `_box` (but its factor) on an axis, from its two parities."""
  size = odd.shape[axis]
  first = jax.lax.slice_in_dim(even, 0, size, axis=axis)
  second = jax.lax.slice_in_dim(even, 1, size + 1, axis=axis)
  return _interleave(first + odd, odd + second, axis)


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
  """Alternates the elements of two arrays along an axis."""
  shape = list(even.shape)
  shape[axis] *= 2
  return jnp.stack([even, odd], axis + 1).reshape(shape)


def _conv(
  x: jax.Array, kernel: jax.Array, padding: _Padding, stride: int = 1
) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
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
