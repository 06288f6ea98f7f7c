"""Reads the weights of the Inception network of 2015, for FID."""

from hatebm_jax.convert import network, torch_network
from hatebm_jax.models.inception import Inception

INPUT_SHAPE = (1, 299, 299, 3)
_ANCHORS = ("Conv2d_1a_3x3.conv.weight",)
_ADVICE = (
  "Give the weights of the Inception network that pytorch-fid or "
  "torch-fidelity publishes."
)


def from_inception(
  path: network.Path, key: str | None = None
) -> tuple[Inception, network.Variables]:
  """Reads the weights that FIDs are computed with.

  Args:
    path: Path of `pt_inception-2015-12-05-6726825d.pth` (pytorch-fid) or
      `weights-inception-2015-12-05-6726825d.pth` (torch-fidelity). Nothing in
      the file is run.
    key: Name of the network in the file, for a file that holds several.

  Returns:
    The module and its variables, float32.

  Raises:
    ConvertError: If the file is missing, damaged, or of another network.
  """
  module = Inception()
  tensors = torch_network.state_dict(path, _ANCHORS, _ADVICE, key)
  return module, torch_network.read(
    path, tensors, module, INPUT_SHAPE, torch_network.LEAVES
  )
