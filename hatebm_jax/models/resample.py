"""Resampling of images, and the pixel operations that it is built from.

All functions take images as `[batch, height, width, channels]`. An `axis` is 1
for rows or 2 for columns.

Some functions work on the four *parts* of an image. `parts[i][j]` holds every
second pixel of row set i and column set j. Two kinds of parts are used:

- even and odd: set 0 holds the even rows (or columns), set 1 the odd ones;
- outer and inner: set 0 holds the pixels that meet taps 0 and 2 of a 3x3
  kernel at stride 2, set 1 those that meet tap 1.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

Pair: TypeAlias = tuple[jax.Array, jax.Array]
Parts: TypeAlias = Sequence[Sequence[jax.Array]]


def avg_pool(x: jax.Array) -> jax.Array:
  """Averages 2x2 patches: `[b, h, w, c]` -> `[b, h/2, w/2, c]`."""
  batch, height, width, channels = x.shape
  patches = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return patches.mean((2, 4))


def upsample(x: jax.Array) -> jax.Array:
  """Doubles the size bilinearly: `[b, h, w, c]` -> `[b, 2h, 2w, c]`.

  Pixels have half-pixel centres and edges are clamped, as in TensorFlow 2 and
  in PyTorch with `align_corners=False`. Along each axis a new pixel is 3/4 of
  the nearest old pixel and 1/4 of the next nearest.
  """
  return weave(split(bilinear, clamp(clamp(x, 1), 2)))


def split(halve: Callable[[jax.Array, int], Pair], x: jax.Array) -> Parts:
  """Returns the four parts of an image.

  Args:
    halve: Function of an image and an axis. It returns the two halves along
      that axis.
    x: Image `[batch, height, width, channels]`.
  """
  return [halve(rows, 2) for rows in halve(x, 1)]


def merge(join: Callable[..., Pair], parts: Parts) -> jax.Array:
  """Returns the image of four outer and inner parts.

  Pixels are interleaved only at the end. This takes half the time of
  interleaving them along one axis after the other.

  Args:
    join: Function of an outer part, an inner part and an axis. It returns the
      even and the odd pixels along that axis.
    parts: Outer and inner parts of the image.
  """
  columns = zip(*(join(*row, axis=2) for row in parts), strict=True)
  return weave(zip(*(join(*c, axis=1) for c in columns), strict=True))


def weave(parts: Iterable[Iterable[jax.Array]]) -> jax.Array:
  """Returns the image of its even and odd parts."""
  return interleave(*(interleave(*row, axis=2) for row in parts), axis=1)


def box(x: jax.Array, axis: int) -> Pair:
  """Returns the means of neighbours along an axis as outer and inner parts.

  Args:
    x: Image that is padded by 1 along the axis.
    axis: Axis of the neighbours.
  """
  size = x.shape[axis]
  return (
    0.5 * (every_other(x, axis, 0, size) + every_other(x, axis, 1, size)),
    0.5
    * (every_other(x, axis, 1, size - 1) + every_other(x, axis, 2, size - 1)),
  )


def unbox(outer: jax.Array, inner: jax.Array, axis: int) -> Pair:
  """Returns even and odd pixels: the transpose of `box` times 2."""
  size = inner.shape[axis]
  return window(outer, axis, 0, size) + inner, (
    window(outer, axis, 1, size) + inner
  )


def blur(outer: jax.Array, inner: jax.Array, axis: int) -> Pair:
  """Blurs by (1/4, 3/4, 3/4, 1/4) along an axis: even and odd pixels."""
  size = inner.shape[axis] - 2
  o = [window(outer, axis, i, size) for i in range(2)]
  i = [window(inner, axis, i, size) for i in range(3)]
  return (
    0.75 * (o[0] + i[1]) + 0.25 * (o[1] + i[0]),
    0.75 * (o[1] + i[1]) + 0.25 * (o[0] + i[2]),
  )


def unblur(y: jax.Array, axis: int) -> Pair:
  """Returns outer and inner parts: the transpose of `blur`.

  Args:
    y: Image that is padded by 3 along the axis.
    axis: Axis of the blur.
  """
  size = y.shape[axis]
  o = [every_other(y, axis, i, size - 4 + i) for i in range(1, 5)]
  i = [every_other(y, axis, i, size - 3 + i) for i in range(4)]
  return (
    0.75 * (o[1] + o[2]) + 0.25 * (o[0] + o[3]),
    0.75 * (i[1] + i[2]) + 0.25 * (i[0] + i[3]),
  )


def bilinear(x: jax.Array, axis: int) -> Pair:
  """Returns even and odd pixels of the bilinear up of an axis.

  Args:
    x: Image whose axis is clamped already.
    axis: Axis that doubles.
  """
  size = x.shape[axis] - 2
  near = 0.75 * window(x, axis, 1, size)
  return (
    near + 0.25 * window(x, axis, 0, size),
    near + 0.25 * window(x, axis, 2, size),
  )


def double(x: jax.Array, axis: int) -> jax.Array:
  """Doubles the size of one axis bilinearly."""
  return interleave(*bilinear(clamp(x, axis), axis), axis)


def spread(x: jax.Array, size: int, axis: int) -> jax.Array:
  """Puts zeros between the two elements of an axis; transpose of `ends`.

  Args:
    x: Array with two elements along the axis.
    size: Elements along the axis of the result.
    axis: Axis that grows.
  """
  config = [(0, 0, 0)] * 4
  config[axis] = (0, 0, size - 2)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def ends(x: jax.Array, axis: int) -> jax.Array:
  """Returns the first and the last element of an axis."""
  size = x.shape[axis]
  first, last = window(x, axis, 0, 1), window(x, axis, size - 1, 1)
  return jnp.concatenate([first, last], axis)


def clamp(x: jax.Array, axis: int) -> jax.Array:
  """Repeats the first and the last element of an axis once."""
  size = x.shape[axis]
  first, last = window(x, axis, 0, 1), window(x, axis, size - 1, 1)
  return jnp.concatenate([first, x, last], axis)


def unclamp(x: jax.Array, axis: int) -> jax.Array:
  """Returns the transpose of `clamp`."""
  size = x.shape[axis] - 2
  inside = window(x, axis, 1, size)
  first, last = window(x, axis, 0, 1), window(x, axis, size + 1, 1)
  return inside + pad(first, axis, 0, size - 1) + pad(last, axis, size - 1, 0)


def pad(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
  """Puts zeros before and after the elements of an axis."""
  config = [(0, 0, 0)] * 4
  config[axis] = (before, after, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
  """Alternates the elements of two arrays along an axis."""
  shape = list(even.shape)
  shape[axis] *= 2
  return jnp.stack([even, odd], axis + 1).reshape(shape)


def every_other(x: jax.Array, axis: int, start: int, stop: int) -> jax.Array:
  """Returns every second element of an axis from `start` to before `stop`."""
  return jax.lax.slice_in_dim(x, start, stop, stride=2, axis=axis)


def window(x: jax.Array, axis: int, start: int, size: int) -> jax.Array:
  """Returns `size` elements of an axis from `start` on."""
  return jax.lax.slice_in_dim(x, start, start + size, axis=axis)
