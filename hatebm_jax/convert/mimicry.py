"""Weights of SN-GANs that the PyTorch package torch-mimicry trained.

Its trainer writes `netG.pth` and `netD.pth`: `{"model_state_dict": ...}` beside
the optimizer's state and the step. Here kernels are `[..., in, out]`, there
`[out, in, ...]`.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from hatebm_jax.convert import network, torch_file
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.generator import Generator

_LAYERS = {
  "conv_0": "c1",
  "conv_1": "c2",
  "norm_0": "b1",
  "norm_1": "b2",
  "shortcut": "c_sc",
}
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
  "u": "weight_u",
  "v": "weight_v",
}
# How many blocks halve the size, by the number of blocks: the discriminators
# for 32, 64 and 128 pixels.
_NUM_DOWNS = {4: 2, 5: 5, 6: 5}
_GENERATOR_BLOCKS = (3, 4, 5)
# A count of batches, with which PyTorch can weight running means.
_NOT_READ = ".num_batches_tracked"


def from_mimicry(path: network.Path) -> tuple[nn.Module, network.Variables]:
  """Reads a generator or a discriminator; widths come from the file.

  Nothing in the file is run, and PyTorch is not needed.

  Args:
    path: of `netG.pth` or `netD.pth`, or of a saved `state_dict`.

  Returns:
    The module and its variables, float32: a `Generator` with `params` and
    `batch_stats`, or a `Discriminator` with `params` and `spectral`: kernels
    are as trained, before spectral norm, with the stored u and v.

  Raises:
    ConvertError: if the file is missing, incomplete, or of another network.
  """
  tensors = _state_dict(path, torch_file.load(path))
  found = {name: tensor.shape for name, tensor in tensors.items()}
  module, input_shape, renames = _infer(path, found)
  shapes = network.expected_shapes(module, input_shape)
  names = {name: _torch_name(name, renames) for name in shapes}
  expected = {names[name]: _torch_shape(name, shapes[name]) for name in shapes}
  network.check_shapes(path, expected, found)
  arrays = torch_file.read(path, {n: tensors[names[n]] for n in names})
  return module, network.unflatten(
    {
      name: _to_flax(name, array, shapes[name])
      for name, array in arrays.items()
    }
  )


def _state_dict(
  path: network.Path, content: Any
) -> dict[str, torch_file.Tensor]:
  """Returns the tensors of a network by name, from what a file holds."""
  if isinstance(content, dict):
    content = content.get("model_state_dict", content)
  if not isinstance(content, dict) or not content:
    raise ConvertError(
      f"{path}: expected a state_dict, or one under model_state_dict, found "
      "none. Give netG.pth or netD.pth of torch-mimicry."
    )
  tensors = {
    str(name): tensor
    for name, tensor in content.items()
    if not str(name).endswith(_NOT_READ)
  }
  for name, tensor in tensors.items():
    kind = getattr(tensor, "dtype", type(tensor).__name__)
    if not isinstance(tensor, torch_file.Tensor) or kind != np.float32:
      raise ConvertError(
        f"{path}: expected a state_dict of float32 tensors, found {name} of "
        f"the type {kind}. Give netG.pth or netD.pth of torch-mimicry."
      )
  return tensors


def _infer(
  path: network.Path, found: Mapping[str, Shape]
) -> tuple[nn.Module, Shape, dict[str, str]]:
  """Finds out which network the tensors of a file belong to.

  Returns:
    The module, the shape of an input and the file's names of its parts.
  """
  parts = {name.split(".")[0] for name in found}
  if "l1" in parts:
    return _infer_generator(path, found)
  if "block1" in parts:
    return _infer_discriminator(path, found)
  raise ConvertError(
    f"{path}: expected the tensors of torch-mimicry's SN-GAN: of its generator "
    "(l1.weight, block2.c1.weight, ...) or of its discriminator "
    f"(block1.c1.weight_orig, ...), found {sorted(parts)[:8]}. Give netG.pth "
    "or netD.pth."
  )


def _infer_generator(path, found):
  blocks = network.blocks(found, first=2)
  if len(blocks) not in _GENERATOR_BLOCKS:
    raise ConvertError(
      f"{path}: expected a generator of {list(_GENERATOR_BLOCKS)} blocks (32, "
      f"64 or 128 pixels), found {len(blocks)}. Check that the file is whole."
    )
  dense_width, latent_dim = network.kernel_shape(path, found, "l1.weight", 2)
  if dense_width % 16:
    raise ConvertError(
      f"{path}: expected l1.weight to make a multiple of 4*4 numbers, found "
      f"the shape {(dense_width, latent_dim)}. Check that the file is of a "
      "generator."
    )
  last = len(blocks) + 2
  module = Generator(
    base_width=dense_width // 16,
    widths=tuple(
      network.kernel_shape(path, found, f"{block}.c1.weight", 4)[0]
      for block in blocks
    ),
    channels=network.kernel_shape(path, found, f"c{last}.weight", 4)[0],
    out_factor=1.0,
    norm_epsilon=1e-5,  # PyTorch's default.
  )
  renames = _renames(blocks) | {
    "dense": "l1",
    "norm": f"b{last}",
    "conv": f"c{last}",
  }
  return module, (1, latent_dim), renames


def _infer_discriminator(path, found):
  blocks = network.blocks(found, first=1)
  if len(blocks) not in _NUM_DOWNS:
    raise ConvertError(
      f"{path}: expected a discriminator of {sorted(_NUM_DOWNS)} blocks (32, "
      f"64 or 128 pixels), found {len(blocks)}. Check that the file is whole."
    )
  kernels = [
    network.kernel_shape(path, found, f"{block}.{conv}.weight_orig", 4)
    for block in blocks
    for conv in ("c1", "c2")
  ]
  module = Discriminator(
    widths=tuple(kernel[0] for kernel in kernels[1::2]),
    num_downs=_NUM_DOWNS[len(blocks)],
  )
  size = 2**module.num_downs
  renames = _renames(blocks) | {
    "head": f"l{len(blocks) + 1}",
    "kernel": "weight_orig",
  }
  return module, (1, size, size, kernels[0][1]), renames


def _renames(blocks: list[str]) -> dict[str, str]:
  """Returns the file's names of the parts that both networks share."""
  numbered = {f"block_{i}": block for i, block in enumerate(blocks)}
  return numbered | _LAYERS | _LEAVES


def _torch_name(name: str, renames: Mapping[str, str]) -> str:
  """Returns the file's name of a flat name, `params/block_1/...`."""
  _, *parts = name.split("/")
  return ".".join(renames.get(part, part) for part in parts)


def _torch_shape(name: str, shape: Shape) -> Shape:
  """Returns the shape that an array of ours has in the file."""
  if name.endswith("/kernel"):
    return (*shape[:-3:-1], *shape[:-2])
  if name.endswith("/v"):
    return (math.prod(shape),)
  return shape


def _to_flax(name: str, array: np.ndarray, shape: Shape) -> np.ndarray:
  """Returns an array of the file as ours, of a shape."""
  if name.endswith("/kernel"):
    return np.moveaxis(array, (0, 1), (-1, -2))
  if name.endswith("/v"):
    return np.moveaxis(array.reshape(shape[-1], *shape[:-1]), 0, -1)
  return array
