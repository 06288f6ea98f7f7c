"""Our own weight files: a network and its variables in one .npz.

Arrays are stored under their flat names (`params/block_0/conv_0/kernel`), the
network under `module` as JSON: `{"class": ..., "attributes": {...}}`. There are
no pickles.
"""

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from hatebm_jax import npz
from hatebm_jax.convert import inception, network
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.models.autoencoder import Decoder, Encoder
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.generator import Generator
from hatebm_jax.models.hat import Hat
from hatebm_jax.models.inception import Inception

_CLASSES = {
  module.__name__: module
  for module in (Hat, Generator, Decoder, Encoder, Discriminator, Inception)
}
# Linen's nesting, and the type to compute in: no business of the weights.
_NOT_STORED = ("parent", "name", "dtype")


def save_npz(
  path: network.Path, module: nn.Module, variables: network.Variables
) -> None:
  """Writes a network and its variables.

  Args:
    path: of the file, which appears whole or not at all.
    module: a network of `hatebm_jax.models`.
    variables: of the module, float32.

  Raises:
    OSError: if the file cannot be written.
  """
  description = {
    "class": type(module).__name__,
    "attributes": {
      field.name: getattr(module, field.name)
      for field in dataclasses.fields(module)
      if field.name not in _NOT_STORED
    },
  }
  arrays = {
    name: np.asarray(x) for name, x in network.flatten(variables).items()
  }
  part = f"{os.fspath(path)}.{os.getpid()}.part"
  try:
    with open(part, "wb") as file:
      np.savez(file, module=np.array(json.dumps(description)), **arrays)
    os.replace(part, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.remove(part)
    raise


def load_npz(path: network.Path) -> tuple[nn.Module, network.Variables]:
  """Reads what `save_npz` wrote.

  Args:
    path: of the file.

  Returns:
    The module and its variables, float32.

  Raises:
    ConvertError: if the file is missing, damaged, or not one of ours.
  """
  try:
    shapes = _array_shapes(path)
    with np.load(path, allow_pickle=False) as file:
      module = _module(path, str(file["module"]))
      shapes.pop("module")
      expected = network.expected_shapes(module, _input_shape(module, shapes))
      network.check_shapes(path, expected, shapes)
      return module, network.unflatten({name: file[name] for name in expected})
  except ConvertError:
    raise
  except npz.READ_ERRORS as error:
    raise ConvertError(
      f"{path}: expected an .npz that `python -m hatebm_jax.convert` wrote, "
      f"found a missing, damaged or foreign file ({network.one_line(error)}). "
      "Convert it anew."
    ) from error


def _array_shapes(path: network.Path) -> dict[str, Shape]:
  """Reads the shapes of an .npz alone: no array is allocated yet."""
  shapes = {}
  with zipfile.ZipFile(path) as archive:
    for name in archive.namelist():
      with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
          raise ValueError(f"{name} has the format version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
      if dtype != np.float32 and name != "module.npy":
        raise ValueError(f"{name} has the type {dtype}, not float32")
      shapes[name.removesuffix(".npy")] = shape
  return shapes


def _module(path: network.Path, text: str) -> nn.Module:
  """Returns the module that a description tells of."""
  try:
    description = json.loads(text)
    attributes = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in description["attributes"].items()
    }
    return _CLASSES[description["class"]](**attributes)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ConvertError(
      f"{path}: expected the description of a {' or '.join(_CLASSES)} under "
      f"`module`, found {text[:200]!r}. Convert the weights anew."
    ) from error


def _input_shape(module: nn.Module, shapes: Mapping[str, Shape]) -> Shape:
  """Returns the shape of an input that the module accepts."""
  if isinstance(module, Inception):
    return inception.INPUT_SHAPE
  if isinstance(module, Generator):
    return (1, shapes["params/dense/kernel"][0])
  # An encoder halves once.
  size = 2 ** getattr(module, "num_downs", 1)
  return (1, size, size, shapes["params/block_0/conv_0/kernel"][2])
