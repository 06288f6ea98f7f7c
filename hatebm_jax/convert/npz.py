"""Weight files of this package: a network and its variables in one .npz.

Arrays are stored under their flat names (`params/block_0/conv_0/kernel`). The
network is stored under `module` as JSON: `{"class": ..., "attributes": {...}}`.
There are no pickles.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from hatebm_jax.convert import inception, network
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.models.decoder import Decoder
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.encoder import Encoder
from hatebm_jax.models.generator import Generator
from hatebm_jax.models.hat import Hat
from hatebm_jax.models.inception import Inception
from hatebm_jax.run import npz

_CLASSES = {
  module.__name__: module
  for module in (Hat, Generator, Decoder, Encoder, Discriminator, Inception)
}
# Linen's nesting and how a network is computed are no part of the weights.
_NOT_STORED = ("parent", "name", "dtype", "conv_form")
# No network has more.
_MAX_BLOCKS, _MAX_WIDTH = 10, 2**16


def save_npz(
  path: network.Path, module: nn.Module, variables: network.Variables
) -> None:
  """Writes a network and its variables.

  Args:
    path: Path of the file. It appears whole or not at all.
    module: Network of `hatebm_jax.models`.
    variables: Variables of the module, float32.

  Raises:
    OSError: If the file cannot be written.
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
  description = np.array(json.dumps(description))
  npz.save(path, module=description, **arrays)


def load_npz(path: network.Path) -> tuple[nn.Module, network.Variables]:
  """Reads what `save_npz` wrote.

  Args:
    path: Path of the file.

  Returns:
    The module and its variables, float32.

  Raises:
    ConvertError: If the file is missing, damaged, or was not written by
      `save_npz`.
  """
  try:
    shapes = _array_shapes(path)
    module = _module(path, str(npz.arrays(path, ["module"])["module"]))
    shapes.pop("module")
    input_shape = _input_shape(path, module, shapes)
    expected = network.expected_shapes(module, input_shape)
    network.check_shapes(path, expected, shapes)
    return module, network.unflatten(npz.arrays(path, expected))
  except npz.FileError as error:
    raise ConvertError(
      f"{path}: expected an .npz that `python -m hatebm_jax.convert` wrote, "
      f"found a missing, damaged or foreign file ({error}). Convert it again."
    ) from error


def _array_shapes(path: network.Path) -> dict[str, Shape]:
  """Reads only the shapes of the arrays in an .npz, and allocates none."""
  headers = npz.headers(path)
  for name, header in headers.items():
    if header.dtype != np.float32 and name != "module":
      raise npz.FileError(f"{name} has the type {header.dtype}, not float32")
  return {name: header.shape for name, header in headers.items()}


def _module(path: network.Path, text: str) -> nn.Module:
  """Returns the module of a description."""
  try:
    description = json.loads(text)
    module_class = _CLASSES[description["class"]]
    fields = {
      field.name: field.type
      for field in dataclasses.fields(module_class)
      if field.name not in _NOT_STORED
    }
    attributes = {
      name: _attribute(fields[name], value)
      for name, value in description["attributes"].items()
    }
    module = module_class(**attributes)
    num_downs = getattr(module, "num_downs", 0)
    if num_downs and num_downs > len(module.widths):
      raise ValueError("more halvings than blocks")
    return module
  # Deep nesting raises RecursionError.
  except (
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise ConvertError(
      f"{path}: expected the description of a {' or '.join(_CLASSES)} under "
      f"`module`, found {text[:200]!r}. Convert the weights again."
    ) from error


def _attribute(kind: Any, value: Any) -> Any:
  """Checks a module's attribute, because an absurd size would never end."""
  if kind is float and isinstance(value, float) and math.isfinite(value):
    return value
  if isinstance(value, list) and kind not in (int, float):
    if not 1 <= len(value) <= _MAX_BLOCKS:
      raise ValueError(f"{len(value)} blocks")
    return tuple(_attribute(int, x) for x in value)
  if kind not in (int, float) or type(value) is not int:
    raise TypeError(f"{value!r} for {kind}")
  if not 1 <= value <= _MAX_WIDTH:
    raise ValueError(f"{value} is no size")
  return value


def _input_shape(
  path: network.Path, module: nn.Module, shapes: Mapping[str, Shape]
) -> Shape:
  """Returns the shape of an input that the module accepts."""
  kernel = functools.partial(network.kernel_shape, path, shapes)
  if isinstance(module, Inception):
    return inception.INPUT_SHAPE
  if isinstance(module, Generator):
    return (1, kernel("params/dense/kernel", 2)[0])
  # A decoder doubles the size and an encoder halves it once.
  num_downs = getattr(module, "num_downs", 1)
  channels = kernel("params/block_0/conv_0/kernel", 4)[2]
  return network.image_shape(num_downs, channels)
