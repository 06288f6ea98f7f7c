"""What all converters share: a network as flat names, shapes and arrays.

A flat name is the path of an array in Flax's variables, for example
`params/block_0/conv_0/kernel`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from hatebm_jax import errors

Shape: TypeAlias = tuple[int, ...]
Variables: TypeAlias = Mapping[str, Mapping]
Path: TypeAlias = str | os.PathLike[str]

# More than any layer has: a file may claim sizes that no array can have.
_MAX_WIDTH = 2**20


class ConvertError(errors.UserError):
  """A file does not hold a network that we can read."""


def one_line(error: Exception) -> str:
  """Returns an error's message without line breaks; of a file, not all."""
  return " ".join(str(error)[:500].split())


def expected_shapes(module: nn.Module, input_shape: Shape) -> dict[str, Shape]:
  """Returns the shapes of a module's variables by flat name; allocates nothing.

  Args:
    module: a network of `hatebm_jax.models`.
    input_shape: of a batch that it accepts; the batch size does not matter.
  """
  structs = jax.eval_shape(
    module.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct(input_shape, jnp.float32),
  )
  return {name: struct.shape for name, struct in flatten(structs).items()}


def check_shapes(
  path: Path, expected: Mapping[str, Shape], found: Mapping[str, Shape]
) -> None:
  """Checks that a file holds exactly the arrays of a network.

  Args:
    path: of the file, for the message.
    expected: shapes of the network's arrays, by their names in the file.
    found: shapes of the file's arrays.

  Raises:
    ConvertError: for a missing or unknown array, or one of another shape.
  """
  advice = "Check that the file is whole and of this network."
  missing = [name for name in expected if name not in found]
  if missing:
    raise ConvertError(
      f"{path}: {missing[0]} {expected[missing[0]]} is missing, and "
      f"{len(missing) - 1} arrays more. {advice}"
    )
  unknown = [name for name in found if name not in expected]
  if unknown:
    raise ConvertError(
      f"{path}: the network that its other arrays describe has no {unknown[0]} "
      f"{found[unknown[0]]}; {len(unknown)} such arrays were found. {advice}"
    )
  for name, shape in expected.items():
    if found[name] != shape:
      raise ConvertError(
        f"{path}: {name} has the shape {found[name]}, expected {shape}. "
        f"{advice}"
      )


def blocks(names: Iterable[str], first: int) -> list[str]:
  """Returns `block2`, `block3`, ... up to the last that a file has.

  Args:
    names: of the file's arrays, as in `block2/conv_1/kernel`.
    first: number of the first block.
  """
  numbers = [re.match(r"block(\d{1,2})[./]", name) for name in names]
  last = max((int(match[1]) for match in numbers if match), default=0)
  return [f"block{number}" for number in range(first, last + 1)]


def kernel_shape(
  path: Path, found: Mapping[str, Shape], name: str, rank: int
) -> Shape:
  """Returns the shape of a layer's kernel, which says the layer's width.

  Args:
    path: of the file, for the message.
    found: shapes of the file's arrays.
    name: of the kernel in the file.
    rank: how many axes it must have.

  Raises:
    ConvertError: if there is no such kernel.
  """
  shape = found.get(name)
  if (
    shape is None
    or len(shape) != rank
    or not all(1 <= size <= _MAX_WIDTH for size in shape)
  ):
    raise ConvertError(
      f"{path}: expected {name} with {rank} axes, found {shape or 'none'}. "
      "Check that the file is whole and of a network that can be converted."
    )
  return shape


def flatten(variables: Variables) -> dict[str, jax.Array]:
  """Returns the arrays of Flax variables by flat name."""
  return traverse_util.flatten_dict(variables, sep="/")


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """Returns Flax variables, float32 on the default device, of flat arrays."""
  return traverse_util.unflatten_dict(
    {name: jnp.asarray(array) for name, array in arrays.items()}, sep="/"
  )
