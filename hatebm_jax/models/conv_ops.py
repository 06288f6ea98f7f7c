"""The forms of the convolutions, and which form runs where.

All forms compute the same values and gradients from the same parameters:

- `literal` computes each layer as the paper's network has it
  (conv_literal.py);
- `packed` needs the fewest multiplications and keeps to what XLA:CPU does fast
  (conv_packed.py);
- `strided` makes each layer one convolution of XLA, with the resampling in its
  kernel, and leaves the gradients to XLA (conv_strided.py);
- `dense` pools as `strided` does. Its bilinear up is a product with a matrix,
  and it packs 2x2 pixels of the hat's first block into the channels
  (conv_dense.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from hatebm_jax.models import (
  conv_dense,
  conv_literal,
  conv_packed,
  conv_strided,
)

# The form of `auto` by the name of JAX's backend. The forms were timed on CPUs
# and on an NVIDIA H200 (experiments/speed). For TPUs, the compiler estimated
# them (experiments/tpu_compile).
_AUTO = {"cpu": "packed", "tpu": "dense", "gpu": "strided"}

# A TPU's matrix unit is 128 channels wide. It is busy with this many channels,
# and packing more pixels into them does not pay.
_FULL = 256

# A register of a TPU has this many rows. The compiler lays fewer images out in
# another way: a Langevin step of 4 took 1.5 to 2.5 times the cycles of one of
# 8 (experiments/tpu_compile).
_ROWS = 8


class Op(NamedTuple):
  """A convolution with bias in one of its forms.

  It is `apply(x, prepare(kernel)) + prepare_bias(bias, x.shape)`. A chain
  prepares both once, because they do not depend on the image.

  Attributes:
    apply: Function of an image `[batch, height, width, in]` and a prepared
      kernel. It returns an image `[batch, height', width', out]`.
    prepare: Function of the layer's kernel, `[window, window, in, out]`. It
      returns an array or a tuple of arrays.
    window: Height and width of the layer's kernel.
    prepare_bias: Function of the layer's bias, `[out]`, and the shape of the
      image.
    pixels: Number of pixels that the input holds in its channels; see
      conv_dense.py.
  """

  apply: Callable[[jax.Array, Any], jax.Array]
  prepare: Callable[[jax.Array], Any] = lambda kernel: kernel
  window: int = 3
  prepare_bias: Callable[[jax.Array, tuple[int, ...]], jax.Array] = (
    lambda bias, shape: bias
  )
  pixels: int = 1


class Block(NamedTuple):
  """The convolutions of a residual block of the hat, which go together.

  What `conv_0` returns is for a ReLU and `conv_1` alone: it need not be an
  image.

  Attributes:
    conv_0: 3x3 convolution of the block's input.
    conv_1: 3x3 convolution, then 2x2 average pool if the block halves the size.
    shortcut: 1x1 convolution of the block's input, after the same pool.
  """

  conv_0: Op
  conv_1: Op
  shortcut: Op


class Form(NamedTuple):
  """All convolutions of the networks in one form.

  Attributes:
    conv3x3: 3x3 convolution, stride 1, zero padding that keeps the size.
    conv3x3_down: 3x3 convolution, then 2x2 average pool.
    up_conv3x3: Bilinear up, then 3x3 convolution.
    conv1x1: 1x1 convolution.
    conv1x1_down: 2x2 average pool, then 1x1 convolution.
    up_conv1x1: 1x1 convolution, then bilinear up.
    stem: Convolutions of a first block that halves the size and has few
      channels; None stands for those of the other blocks.
    full_batch: Number of images that take a device no longer than half as many
      do.
  """

  conv3x3: Op
  conv3x3_down: Op
  up_conv3x3: Op
  conv1x1: Op
  conv1x1_down: Op
  up_conv1x1: Op
  stem: Block | None = None
  full_batch: int = 1

  def block(self, features: int, down: bool, stem: bool) -> Block:
    """Returns the convolutions of a residual block.

    Args:
      features: Number of output channels.
      down: True for a block that halves the size.
      stem: True for the first block, which takes the image itself.
    """
    if down and stem and features < _FULL and self.stem is not None:
      return self.stem
    if down:
      return Block(self.conv3x3, self.conv3x3_down, self.conv1x1_down)
    return Block(self.conv3x3, self.conv3x3, self.conv1x1)


_LITERAL = Form(
  conv3x3=Op(conv_literal.conv3x3),
  conv3x3_down=Op(conv_literal.conv3x3_down),
  up_conv3x3=Op(conv_literal.up_conv3x3),
  conv1x1=Op(conv_literal.conv1x1, window=1),
  conv1x1_down=Op(conv_literal.conv1x1_down, window=1),
  up_conv1x1=Op(conv_literal.up_conv1x1, window=1),
)
_STRIDED = _LITERAL._replace(
  conv3x3_down=Op(conv_strided.conv3x3_down, conv_strided.down_kernel),
  up_conv3x3=Op(conv_strided.up_conv3x3, conv_strided.up_kernel),
  conv1x1_down=Op(
    conv_strided.conv1x1_down, conv_strided.shortcut_kernel, window=1
  ),
)
_DENSE_STEM = Block(
  conv_0=Op(
    conv_dense.conv3x3,
    conv_dense.conv3x3_kernel,
    prepare_bias=conv_dense.bias_map,
  ),
  conv_1=Op(conv_dense.conv3x3_down, conv_dense.down_kernel, pixels=4),
  shortcut=Op(conv_dense.conv1x1_down, conv_dense.shortcut_kernel, window=1),
)
FORMS = {
  "literal": _LITERAL,
  "packed": _LITERAL._replace(
    conv3x3=Op(conv_packed.conv3x3),
    conv3x3_down=Op(conv_packed.conv3x3_down),
    up_conv3x3=Op(conv_packed.up_conv3x3),
  ),
  "strided": _STRIDED,
  "dense": _STRIDED._replace(
    conv3x3_down=Op(conv_dense.pooled_conv3x3, conv_dense.pooled_kernels),
    up_conv3x3=Op(conv_dense.up_conv3x3),
    up_conv1x1=Op(conv_dense.up_conv1x1, window=1),
    stem=_DENSE_STEM,
    full_batch=_ROWS,
  ),
}


def choose(name: str, platform: str) -> str:
  """Returns the name of a form, which stands for itself unless it is `auto`.

  Args:
    name: Value of `config.model.conv_form`.
    platform: Platform that the networks run on: `cpu`, `gpu` or `tpu`.
  """
  return _AUTO.get(platform, "strided") if name == "auto" else name


def form(name: str) -> Form:
  """Returns a form by its name; `auto` is that of JAX's default backend."""
  return FORMS[choose(name, jax.default_backend())]
