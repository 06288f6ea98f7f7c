"""Weights of the Inception network of 2015, from the usual .pth files."""

import numpy as np

from hatebm_jax.convert import network, torch_file
from hatebm_jax.convert.network import ConvertError
from hatebm_jax.models.inception import Inception

INPUT_SHAPE = (1, 299, 299, 3)
# PyTorch's names and ours: collection, name.
_NAMES = {
  ("conv", "weight"): ("params", "kernel"),
  ("bn", "weight"): ("params", "scale"),
  ("bn", "bias"): ("params", "bias"),
  ("bn", "running_mean"): ("batch_stats", "mean"),
  ("bn", "running_var"): ("batch_stats", "var"),
  ("fc", "weight"): ("params", "kernel"),
  ("fc", "bias"): ("params", "bias"),
}
_OF_FLAX = {(layer, *ours): name for (layer, name), ours in _NAMES.items()}


def from_inception(path: network.Path) -> tuple[Inception, network.Variables]:
  """Reads the weights that FIDs are computed with.

  Args:
    path: of `pt_inception-2015-12-05-6726825d.pth` (pytorch-fid) or
      `weights-inception-2015-12-05-6726825d.pth` (torch-fidelity). Nothing in
      it is run.

  Returns:
    The module and its variables, float32.

  Raises:
    ConvertError: if the file is missing, damaged, or of another network.
  """
  tensors = torch_file.load(path)
  if not isinstance(tensors, dict) or not all(
    isinstance(name, str) and isinstance(tensor, torch_file.Tensor)
    for name, tensor in tensors.items()
  ):
    raise ConvertError(
      f"{path}: expected the state_dict of an Inception network, found a "
      f"{type(tensors).__name__} of other things."
    )
  # A counter of training steps; newer PyTorch keeps one for every norm.
  tensors = {
    name: tensor
    for name, tensor in tensors.items()
    if not name.endswith("num_batches_tracked")
  }
  module = Inception()
  shapes = network.expected_shapes(module, INPUT_SHAPE)
  names = {name: _torch_name(name) for name in shapes}
  expected = {
    names[name]: _torch_shape(shape) for name, shape in shapes.items()
  }
  network.check_shapes(
    path, expected, {name: tensor.shape for name, tensor in tensors.items()}
  )
  values = torch_file.read(path, tensors)
  return module, network.unflatten(
    {name: _to_flax(values[names[name]]) for name in shapes}
  )


def _torch_name(name: str) -> str:
  """`params/Mixed_5b/conv/kernel` -> `Mixed_5b.conv.weight`."""
  collection, *layers, kind = name.split("/")
  return ".".join([*layers, _OF_FLAX[layers[-1], collection, kind]])


def _torch_shape(shape: network.Shape) -> network.Shape:
  """Shapes of kernels: outputs, inputs, height, width."""
  if len(shape) == 4:
    height, width, inputs, outputs = shape
    return outputs, inputs, height, width
  return shape[::-1]


def _to_flax(values: np.ndarray) -> np.ndarray:
  axes = (2, 3, 1, 0) if values.ndim == 4 else tuple(range(values.ndim))[::-1]
  return np.asarray(values.transpose(axes), np.float32)
