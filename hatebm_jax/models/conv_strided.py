"""The strided form of the convolutions: one XLA convolution for each layer.

A pooled convolution becomes one convolution with stride 2, whose kernel has
the pool in it. An up convolution becomes the blur of one transposed
convolution with stride 2. What is done to the kernels does not depend on the
images; the `*_kernel` functions do it, and a chain calls them once. The
gradients are XLA's own, which libraries such as cuDNN compute.
"""

import jax
import jax.numpy as jnp

from hatebm_jax.models import resample
from hatebm_jax.models.conv_literal import SAME, VALID, convolve
from hatebm_jax.models.conv_packed import beyond, vary_like
from hatebm_jax.models.resample import clamp, window


def down_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel of `conv3x3_down`.

  It is the 3x3 kernel, averaged over the four pixels of a 2x2 patch.

  Args:
    kernel: Kernel `[3, 3, in, out]`.

  Returns:
    Kernel `[4, 4, in, out]`.
  """
  k = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  return 0.25 * (k[:-1, :-1] + k[1:, :-1] + k[:-1, 1:] + k[1:, 1:])


def conv3x3_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """3x3 convolution and 2x2 average pool in one convolution.

  It has four ninths of the literal multiplications.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `down_kernel`.
  """
  return convolve(x, kernel, SAME, stride=2)


def shortcut_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel `[2, 2, in, out]` of `conv1x1_down`."""
  return jnp.tile(0.25 * kernel, (2, 2, 1, 1))


def conv1x1_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """2x2 average pool and 1x1 convolution in one convolution.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `shortcut_kernel`.
  """
  return convolve(x, kernel, VALID, stride=2)


def up_kernel(kernel: jax.Array) -> jax.Array:
  """Returns the kernel `[3, 3, out, in]` of `up_conv3x3`.

  The transposed convolution reverses it again. The barrier keeps XLA from
  dropping both reversals: without the second one XLA:GPU does not recognise
  the transposed convolution and fills the image with zeros instead.

  Args:
    kernel: Kernel `[3, 3, in, out]`.
  """
  reverse = kernel[::-1, ::-1].swapaxes(2, 3)
  return jax.lax.optimization_barrier(reverse)


def up_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Bilinear up and 3x3 convolution as a transposed convolution and a blur.

  The convolution has a quarter of the literal multiplications.

  Args:
    x: Image `[batch, height, width, in]`.
    kernel: Kernel of `up_kernel`.
  """
  wide = _transposed(clamp(clamp(x, 1), 2), vary_like(kernel, x))
  rows, columns = beyond(x, kernel[::-1, ::-1].swapaxes(2, 3))
  y = _blur(_blur(wide, 1), 2)
  rows = resample.spread(rows, y.shape[1], axis=1)
  return y - rows - resample.spread(columns, y.shape[2], axis=2)


def _blur(x: jax.Array, axis: int) -> jax.Array:
  """Blurs an axis by (1/4, 3/4, 3/4, 1/4). It becomes 3 shorter."""
  size = x.shape[axis] - 3
  a, b, c, d = (window(x, axis, i, size) for i in range(4))
  return 0.75 * (b + c) + 0.25 * (a + d)


def _down(y: jax.Array, kernel: jax.Array) -> jax.Array:
  """The stride-2 convolution that `_transposed` is the transpose of.

  Args:
    y: Image `[batch, 2 height - 1, 2 width - 1, out]`.
    kernel: Kernel of `up_kernel`.

  Returns:
    Image `[batch, height, width, in]`.
  """
  return convolve(y, kernel, SAME, stride=2)


# JAX's own gradient in the kernel has a dilated image beside a kernel of the
# image's size. The gradient of `_down` in the kernel is the same, and a form
# that libraries know.
@jax.custom_vjp
def _transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x,
    jax.lax.rev(kernel, (0, 1)),
    (1, 1),
    SAME,
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWOI", "NHWC"),
  )


def _transposed_forward(x, kernel):
  return _transposed(x, kernel), (x, kernel)


def _transposed_backward(saved, dy):
  x, kernel = saved
  dx, pull = jax.vjp(lambda kernel: _down(dy, kernel), kernel)
  return dx, *pull(x)


_transposed.defvjp(_transposed_forward, _transposed_backward)
