"""EfficientNet-Lite0, in whose features sets of images are compared.

It is EfficientNet-B0 (Tan and Le, ICML 2019) without squeeze and excitation,
and with ReLU6 in place of Swish.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

IMAGE_SIZE = 224
NUM_FEATURES = 1280
NUM_CLASSES = 1000

# Stages of blocks: number of blocks, kernel size, stride of the first block,
# factor by which a block widens its input, and channels of its output.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
NUM_BLOCKS = sum(stage[0] for stage in _STAGES)
# The network was trained on (x - 127) / 128, with x from 0 to 255.
_MEAN, _SCALE = 127, 128


class _Block(nn.Module):
  """Widens the channels, convolves each of them alone, and narrows them."""

  features: int
  kernel_size: int
  stride: int
  expansion: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y, width = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = nn.relu6(_norm("bn0")(_conv("expand_conv", width)(y)))
    conv = DepthwiseConv(self.kernel_size, self.stride, name="depthwise_conv")
    y = nn.relu6(_norm("bn1")(conv(y)))
    y = _norm("bn2")(_conv("project_conv", self.features)(y))
    return x + y if x.shape == y.shape else y


class DepthwiseConv(nn.Module):
  """Convolves each channel with its own kernel.

  It is a sum over the places of the kernel. On a CPU, XLA takes ten times as
  long for a convolution with as many groups as channels.

  Attributes:
    kernel_size: Height and width of the kernels.
    stride: Stride of both axes.
  """

  kernel_size: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns `[batch, ceil(size / stride), ceil(size / stride), channels]`.

    Args:
      x: Square images `[batch, size, size, channels]`.
    """
    size, stride = self.kernel_size, self.stride
    shape = (size, size, 1, x.shape[-1])
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    # The padding is TensorFlow's "SAME".
    last = (-(-x.shape[1] // stride) - 1) * stride
    padding = max(last + size - x.shape[1], 0)
    pads = (padding // 2, padding - padding // 2)
    x = jnp.pad(x, ((0, 0), pads, pads, (0, 0)))
    return sum(
      x[:, i : i + last + 1 : stride, j : j + last + 1 : stride]
      * kernel[i, j, 0]
      for i, j in np.ndindex(size, size)
    )


def _conv(name: str, features: int, size: int = 1, stride: int = 1) -> nn.Conv:
  return nn.Conv(
    features, (size, size), (stride, stride), use_bias=False, name=name
  )


def _norm(name: str) -> nn.BatchNorm:
  return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)


class EfficientNetLite0(nn.Module):
  """EfficientNet-Lite0, a classifier of the 1,000 classes of ImageNet."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns features `[batch, 1280]` and logits `[batch, 1000]`.

    Args:
      x: Images `[batch, 224, 224, 3]` that `preprocess` returned.
    """
    x = nn.relu6(_norm("bn0")(_conv("conv_stem", 32, 3, 2)(x)))
    index = 0
    for num_blocks, kernel_size, stride, expansion, features in _STAGES:
      for i in range(num_blocks):
        block = _Block(
          features,
          kernel_size,
          stride if i == 0 else 1,
          expansion,
          name=f"block_{index}",
        )
        x = block(x)
        index += 1
    x = nn.relu6(_norm("bn1")(_conv("conv_head", NUM_FEATURES)(x)))
    x = x.mean((1, 2))
    return x, nn.Dense(NUM_CLASSES, name="fc")(x)


def preprocess(images: jax.Array) -> jax.Array:
  """Returns the input of the network for images.

  Images are resized bilinearly with antialias. Grey images get three equal
  channels. Then x becomes (x - 127) / 128, as in the training of the network.

  Args:
    images: Images `[batch, height, width, channels]`, uint8, in grey or colour.

  Returns:
    Images `[batch, 224, 224, 3]`, float32.
  """
  batch, _, _, channels = images.shape
  shape = (batch, IMAGE_SIZE, IMAGE_SIZE, channels)
  x = jax.image.resize(images.astype(jnp.float32), shape, "linear")
  return jnp.broadcast_to((x - _MEAN) / _SCALE, (*shape[:-1], 3))
