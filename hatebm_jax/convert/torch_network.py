"""What the converters of PyTorch's networks share.

Kernels are `[..., in, out]` in Flax and `[out, in, ...]` in PyTorch.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
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
# DataParallel and torch.compile add these parts to the names of tensors.
_WRAPPERS = ("module", "_orig_mod")
# A state_dict lies in at most this many dictionaries, one inside the other.
_MAX_DEPTH = 4
_MAX_NAME = 200  # characters; no tensor has a longer name
_MAX_NETWORKS = 8  # No file has more, and a message can name as many.


def state_dict(
  path: network.Path,
  anchors: Sequence[str],
  advice: str,
  key: str | None = None,
) -> dict[str, Tensor]:
  """Reads which tensors the network in a file has, but no values.

  The state_dict may lie in other dictionaries, under any name, and its names
  may have a prefix: `module.` (DataParallel), `_orig_mod.` (torch.compile) or
  the name of an attribute such as `netG.`.

  Args:
    path: Path of a .pth.
    anchors: Names by which the network is recognised. Each network that can be
      read has a tensor of one of these names.
    advice: Sentence for the error message: which file to give.
    key: Name of the network in the file, for a file that holds several.

  Raises:
    ConvertError: If the file is missing, damaged, or holds other things.
  """
  content = torch_file.load(path)
  networks = {
    name.strip("."): tensors
    for name, tensors in itertools.islice(
      _networks(content, anchors), _MAX_NETWORKS
    )
  }
  if key is not None and key not in networks:
    raise ConvertError(
      f"{path}: expected a network called {key!r}, found "
      f"{', '.join(map(repr, networks)) or 'none'}. {advice}"
    )
  if len(networks) > 1 and key is None:
    raise ConvertError(
      f"{path}: expected one network, found several: "
      f"{', '.join(map(repr, networks))}. Choose one of them, for example "
      f"--key={next(iter(networks))!r}."
    )
  if networks:
    found = networks[next(iter(networks)) if key is None else key]
  else:  # Its names will show what the file is.
    found = max(_dictionaries(content), key=_num_tensors, default=("", {}))[1]
  if not found:
    raise ConvertError(f"{path}: expected a state_dict, found none. {advice}")
  _check_types(path, found, advice)
  return found


def _dictionaries(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the dictionaries in a file once each, by the path of their keys."""
  seen, level = set(), [("", content)]
  for _ in range(_MAX_DEPTH):
    inner = []
    for path, found in level:
      # A stranger's file may refer to one dictionary a million times.
      if isinstance(found, dict) and id(found) not in seen:
        seen.add(id(found))
        yield path, _named(found)
        inner += [
          (f"{path}{_cut(key)}.", value)
          for key, value in found.items()
          if isinstance(value, dict)
        ]
    level = inner


def _named(content: Mapping[Any, Any]) -> dict[str, Any]:
  """Returns the entries of a dictionary by names without wrappers' parts."""
  parts = lambda key: (x for x in _cut(key).split(".") if x not in _WRAPPERS)
  return {
    ".".join(parts(key)): value
    for key, value in content.items()
    if not str(key).endswith(_NOT_READ)
  }


def _cut(key: Any) -> str:
  """Returns a key as text, because a stranger's keys may be long."""
  return str(key)[:_MAX_NAME]


def _networks(
  content: Any, anchors: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields each network whose anchor a file has, by its path in the file."""
  for path, named in _dictionaries(content):
    for name in named:
      for anchor in anchors:
        prefix = name.removesuffix(anchor)
        if prefix != name and (not prefix or prefix.endswith(".")):
          yield (
            path + prefix,
            {
              inner.removeprefix(prefix): value
              for inner, value in named.items()
              if inner.startswith(prefix)
            },
          )


def _num_tensors(entry: tuple[str, dict[str, Any]]) -> int:
  return sum(isinstance(value, Tensor) for value in entry[1].values())


def _check_types(
  path: network.Path, tensors: Mapping[str, Any], advice: str
) -> None:
  """Raises a ConvertError if not all entries are tensors of real numbers."""
  for name, tensor in tensors.items():
    kind = getattr(tensor, "dtype", type(tensor).__name__)
    # NumPy does not count bfloat16 as a kind of float.
    is_real = isinstance(tensor, Tensor) and jnp.issubdtype(kind, jnp.floating)
    if not is_real:
      raise ConvertError(
        f"{path}: expected a state_dict of tensors of real numbers, found "
        f"{name} of the type {kind}. {advice}"
      )


def read(
  path: network.Path,
  tensors: Mapping[str, Tensor],
  module: nn.Module,
  input_shape: Shape,
  renames: Mapping[str, str],
) -> network.Variables:
  """Reads the variables of a module.

  Numbers of any precision become float32.

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
    {
      name: _to_flax(name, arrays[name].astype(np.float32), shapes[name])
      for name in names
    }
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
