"""The forms of the convolutions, and which form runs where.

All forms compute the same values and gradients from the same parameters:

- `literal` computes each layer as the paper's network has it
  (conv_literal.py);
- `packed` needs the fewest multiplications and keeps to what XLA:CPU does fast
  (conv_packed.py);
- `strided` makes each layer one convolution of XLA, with the resampling in its
  kernel, and leaves the gradients to XLA (conv_strided.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from hatebm_jax.models import conv_literal, conv_packed, conv_strided

# The form of `auto` by the name of JAX's backend. The forms were timed on CPUs
# and on an NVIDIA H200 (experiments/speed).
_AUTO = {"cpu": "packed", "tpu": "packed", "gpu": "strided"}


class Op(NamedTuple):
  """A convolution in one of its forms: `apply(x, prepare(kernel))`.

  Attributes:
    apply: Function of an image `[batch, height, width, in]` and a prepared
      kernel. It returns an image `[batch, height', width', out]`.
    prepare: Function of the layer's kernel, `[window, window, in, out]`. A
      chain calls it once, because its result does not depend on the image.
    window: Height and width of the layer's kernel.
  """

  apply: Callable[[jax.Array, jax.Array], jax.Array]
  prepare: Callable[[jax.Array], jax.Array] = lambda kernel: kernel
  window: int = 3


class Form(NamedTuple):
  """All convolutions of the networks in one form.

  Attributes:
    conv3x3: 3x3 convolution, stride 1, zero padding that keeps the size.
    conv3x3_down: 3x3 convolution, then 2x2 average pool.
    up_conv3x3: Bilinear up, then 3x3 convolution.
    conv1x1: 1x1 convolution.
    conv1x1_down: 2x2 average pool, then 1x1 convolution.
  """

  conv3x3: Op
  conv3x3_down: Op
  up_conv3x3: Op
  conv1x1: Op
  conv1x1_down: Op


_LITERAL = Form(
  conv3x3=Op(conv_literal.conv3x3),
  conv3x3_down=Op(conv_literal.conv3x3_down),
  up_conv3x3=Op(conv_literal.up_conv3x3),
  conv1x1=Op(conv_literal.conv1x1, window=1),
  conv1x1_down=Op(conv_literal.conv1x1_down, window=1),
)
FORMS = {
  "literal": _LITERAL,
  "packed": _LITERAL._replace(
    conv3x3=Op(conv_packed.conv3x3),
    conv3x3_down=Op(conv_packed.conv3x3_down),
    up_conv3x3=Op(conv_packed.up_conv3x3),
  ),
  "strided": _LITERAL._replace(
    conv3x3_down=Op(conv_strided.conv3x3_down, conv_strided.down_kernel),
    up_conv3x3=Op(conv_strided.up_conv3x3, conv_strided.up_kernel),
    conv1x1_down=Op(
      conv_strided.conv1x1_down, conv_strided.shortcut_kernel, window=1
    ),
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
