"""What the converters of PyTorch's networks share.

Kernels are `[..., in, out]` in Flax and `[out, in, ...]` in PyTorch.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from hatebm_jax.convert import network, torch_file
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.convert.torch_pickle import Tensor

# Flax's names of arrays, and PyTorch's.
LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
  "u": "weight_u",
  "v": "weight_v",
}
# PyTorch counts the batches of each norm; it can weight running means by them.
_NOT_READ = ".num_batches_tracked"


def state_dict(path: network.Path, advice: str) -> dict[str, Tensor]:
  """Reads which tensors the network in a file has, but no values.

  Args:
    path: Path of a .pth. It holds a state_dict, or one under
      `model_state_dict`.
    advice: Sentence for the error message: which file to give.

  Raises:
    ConvertError: If the file is missing, damaged, or holds other things.
  """
  content = torch_file.load(path)
  if isinstance(content, dict):
    content = content.get("model_state_dict", content)
  if not isinstance(content, dict) or not content:
    raise ConvertError(
      f"{path}: expected a state_dict, or one under model_state_dict, found "
      f"none. {advice}"
    )
  tensors = {
    str(name): tensor
    for name, tensor in content.items()
    if not str(name).endswith(_NOT_READ)
  }
  for name, tensor in tensors.items():
    kind = getattr(tensor, "dtype", type(tensor).__name__)
    if not isinstance(tensor, Tensor) or kind != np.float32:
      raise ConvertError(
        f"{path}: expected a state_dict of float32 tensors, found {name} of "
        f"the type {kind}. {advice}"
      )
  return tensors


def read(
  path: network.Path,
  tensors: Mapping[str, Tensor],
  module: nn.Module,
  input_shape: Shape,
  renames: Mapping[str, str],
) -> network.Variables:
  """Reads the variables of a module.

  Args:
    path: Path of the file.
    tensors: Tensors that `state_dict` returned for this file.
    module: Network that the file should hold.
    input_shape: Shape of a batch that it accepts.
    renames: PyTorch's names of layers and arrays by Flax's names.

  Raises:
    ConvertError: If the file is damaged, or does not hold exactly the arrays of
      the network.
  """
  shapes = network.expected_shapes(module, input_shape)
  names = {name: name_in_file(name, renames) for name in shapes}
  network.check_shapes(
    path,
    {names[name]: shape_in_file(name, shapes[name]) for name in shapes},
    {name: tensor.shape for name, tensor in tensors.items()},
  )
  arrays = torch_file.read(path, {n: tensors[names[n]] for n in names})
  return network.unflatten(
    {name: _to_flax(name, arrays[name], shapes[name]) for name in names}
  )


def name_in_file(name: str, renames: Mapping[str, str]) -> str:
  """Returns the file's name of a flat name such as `params/block_1/...`."""
  _, *parts = name.split("/")
  return ".".join(renames.get(part, part) for part in parts)


def shape_in_file(name: str, shape: Shape) -> Shape:
  """Returns the shape in the file of an array with a flat name and a shape."""
  if name.endswith("/kernel"):
    return (*shape[:-3:-1], *shape[:-2])
  if name.endswith("/v"):
    return (math.prod(shape),)
  return shape


def _to_flax(name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
  """Returns an array of the file in Flax's layout, which has a shape."""
  if name.endswith("/kernel"):
    return np.moveaxis(array, (0, 1), (-1, -2))
  if name.endswith("/v"):
    return np.moveaxis(array.reshape(shape[-1], *shape[:-1]), 0, -1)
  return array
