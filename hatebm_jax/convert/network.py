"""What all converters share: a network as flat names, shapes and arrays.

A flat name is the path of an array in Flax's variables, for example
`params/block_0/conv_0/kernel`.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
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

# How many of the first blocks halve the size, by the number of blocks, in the
# hats and discriminators for 32, 64 and 128 pixels. A file's shortcuts would
# say it too, but then a file that lacks one would pass for another network.
NUM_DOWNS = {4: 2, 5: 5, 6: 5}

# No layer is wider. A file may claim sizes that no array can have.
_MAX_WIDTH = 2**20


class ConvertError(errors.UserError):
  """A file holds no network that can be read."""


def one_line(error: Exception) -> str:
  """Returns the beginning of an error's message without line breaks.

  The message may quote a file, which can be long.
  """
  return " ".join(str(error)[:500].split())


def expected_shapes(module: nn.Module, input_shape: Shape) -> dict[str, Shape]:
  """Returns the shapes of a module's variables by flat name.

  No array is allocated.

  Args:
    module: Network of `hatebm_jax.models`.
    input_shape: Shape of a batch that it accepts. The batch size does not
      matter.
  """
  structs = jax.eval_shape(
    module.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct(input_shape, jnp.float32),
  )
  return {name: struct.shape for name, struct in flatten(structs).items()}


def image_shape(num_downs: int, channels: int) -> Shape:
  """Returns the shape of the smallest batch of images for a hat.

  Args:
    num_downs: Number of times that the network halves the size.
    channels: Number of channels of the images.
  """
  return (1, 2**num_downs, 2**num_downs, channels)


def check_shapes(
  path: Path, expected: Mapping[str, Shape], found: Mapping[str, Shape]
) -> None:
  """Checks that a file holds exactly the arrays of a network.

  Args:
    path: Path of the file for the message.
    expected: Shapes of the network's arrays by their names in the file.
    found: Shapes of the file's arrays.

  Raises:
    ConvertError: If an array is missing, unknown, or has another shape.
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


def blocks(
  path: Path,
  found: Mapping[str, Shape],
  first: int,
  what: str,
  counts: Collection[int],
  stem: Sequence[str] = (),
) -> list[str]:
  """Returns the file's names of a network's blocks.

  Args:
    path: Path of the file for the message.
    found: Shapes of the file's arrays by names such as `block2/conv_1/kernel`.
    first: Number of the first block that has a number.
    what: Name of the network for the message.
    counts: Numbers of blocks that the network can have.
    stem: Names of the blocks before.

  Returns:
    `block2`, `block3`, ... up to the last one that the file has, after `stem`.

  Raises:
    ConvertError: If the network has another number of blocks.
  """
  numbers = [re.match(r"block(\d{1,2})[./]", name) for name in found]
  last = max((int(match[1]) for match in numbers if match), default=0)
  names = [*stem, *(f"block{number}" for number in range(first, last + 1))]
  if len(names) not in counts:
    raise ConvertError(
      f"{path}: expected {what} of {' or '.join(map(str, counts))} blocks, "
      f"found {len(names)}. Check that the file is whole."
    )
  return names


def kernel_shape(
  path: Path, found: Mapping[str, Shape], name: str, rank: int
) -> Shape:
  """Returns the shape of a layer's kernel, which tells the layer's width.

  Args:
    path: Path of the file for the message.
    found: Shapes of the file's arrays.
    name: Name of the kernel in the file.
    rank: Number of axes that it must have.

  Raises:
    ConvertError: If there is no such kernel.
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


def base_width(path: Path, name: str, num_outputs: int) -> int:
  """Returns the channels of a generator's dense layer, which makes 4x4 pixels.

  Args:
    path: Path of the file for the message.
    name: Name of the layer's kernel in the file.
    num_outputs: Number of outputs of the layer.

  Raises:
    ConvertError: If the outputs do not make 4x4 pixels.
  """
  if num_outputs % 16:
    raise ConvertError(
      f"{path}: expected {name} to make a multiple of 4*4 numbers, found "
      f"{num_outputs}. Check that the file is of a generator."
    )
  return num_outputs // 16


def flatten(variables: Variables) -> dict[str, jax.Array]:
  """Returns the arrays of Flax variables by flat name."""
  return traverse_util.flatten_dict(variables, sep="/")


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, dict]:
  """Returns Flax variables of flat arrays, float32 on the default device."""
  return traverse_util.unflatten_dict(
    {name: jnp.asarray(array) for name, array in arrays.items()}, sep="/"
  )
