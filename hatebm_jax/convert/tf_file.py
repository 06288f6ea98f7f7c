"""TensorFlow 2's checkpoints, read without TensorFlow.

TensorFlow's own reader claims the memory that a damaged table asks for. Here,
everything is checked against the sizes of the files first.

`NAME.index` is a table of LevelDB's format: blocks of sorted keys and values, a
block that lists these blocks, and a footer that says where that is. A key is
the name of a variable, its value a protocol buffer, `BundleEntryProto` of
TensorFlow's `tensor_bundle.proto`. The numbers are in
`NAME.data-00000-of-00001`, ... Blocks and values have a CRC-32C.
"""

import glob
import math
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hatebm_jax.convert import crc32c, network
from hatebm_jax.convert.network import ConvertError, Shape

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TRAILER = 5  # bytes behind a block: its kind and its CRC
_MAX_INDEX, _MAX_KEY, _MAX_VARINT = 2**26, 1024, 10  # bytes
_MAX_VARIABLES = 10_000
_FIXED = {1: "<Q", 5: "<I"}  # of protocol buffers

# TensorFlow's numbers of types.
FLOAT32 = 1
_TYPES = {1: "float32", 2: "float64", 3: "int32", 7: "string", 9: "int64"}
_TYPES |= {14: "bfloat16", 19: "float16"}


class Variable(NamedTuple):
  """Where the values of a variable are.

  Attributes:
    type: TensorFlow's number of it.
    shape: of the variable.
    shard: number of the .data file.
    offset: in that file, bytes.
    size: bytes.
    crc: masked CRC-32C of the values.
    is_sliced: whether the values are under other keys.
  """

  type: int
  shape: Shape
  shard: int
  offset: int
  size: int
  crc: int
  is_sliced: bool

  @property
  def type_name(self) -> str:
    """TensorFlow's name of the type."""
    return _TYPES.get(self.type, f"number {self.type}")


def table(prefix: str) -> dict[str, Variable]:
  """Reads the variables of a checkpoint, no values yet.

  Args:
    prefix: of its files.

  Raises:
    ConvertError: if the .index is missing, damaged or foreign.
  """
  try:
    return _table(f"{prefix}.index")
  except (IndexError, OSError, ValueError, struct.error) as error:
    raise ConvertError(
      f"{prefix}.index: expected the table of a TensorFlow 2 checkpoint, found "
      f"a damaged or foreign file ({network.one_line(error)}). Copy it anew."
    ) from error


def data_files(prefix: str) -> list[str]:
  """Returns the .data files of a checkpoint, in their order."""
  return sorted(glob.glob(glob.escape(prefix) + ".data-?????-of-?????"))


def read(prefix: str, name: str, variable: Variable) -> np.ndarray:
  """Reads the values of a float32 variable.

  Args:
    prefix: of the checkpoint's files.
    name: of the variable, for the message.
    variable: from `table`.

  Raises:
    ConvertError: if the .data file is missing or damaged.
  """
  try:
    needed = 4 * math.prod(variable.shape)
    if variable.type != FLOAT32 or variable.is_sliced:
      raise ValueError("they are not stored as float32 in one piece")
    if variable.size != needed:
      raise ValueError(f"{variable.size} bytes, not {needed}")
    number = len(data_files(prefix))
    file = f"{prefix}.data-{variable.shard:05d}-of-{number:05d}"
    if variable.offset + needed > os.path.getsize(file):
      raise ValueError("they are beyond the file's end")
    values = np.fromfile(file, "<f4", needed // 4, offset=variable.offset)
    if crc32c.masked(values.view(np.uint8)) != variable.crc:
      raise ValueError("the checksum does not fit")
    return values.reshape(variable.shape).astype(np.float32, copy=False)
  except (IndexError, OSError, ValueError) as error:
    raise ConvertError(
      f"{prefix}: the values of {name} cannot be read, the .data file is "
      f"damaged ({network.one_line(error)}). Copy it anew."
    ) from error


def _table(path: str) -> dict[str, Variable]:
  if os.path.getsize(path) > _MAX_INDEX:
    raise ValueError("larger than any table of a network")
  with open(path, "rb") as file:
    content = file.read()
  if len(content) < _FOOTER or content[-8:] != _MAGIC.to_bytes(8, "little"):
    raise ValueError("it does not end as a table does")
  footer, at = content[-_FOOTER:-8], 0
  handle = []  # Of the block of statistics and of the block of blocks.
  for _ in range(4):
    number, at = _varint(footer, at)
    handle.append(number)
  variables, last = {}, None
  for _, value in _block(content, *handle[2:]):
    offset, at = _varint(value, 0)
    size, _ = _varint(value, at)
    for key, entry in _block(content, offset, size):
      # Sorted keys are unique, and a block cannot be listed twice.
      if last is not None and key <= last:
        raise ValueError("its keys are not sorted")
      last = key
      if len(variables) == _MAX_VARIABLES:
        raise ValueError(f"more than {_MAX_VARIABLES} variables")
      if key:
        variables[key.decode()] = _variable(entry)
      elif _last(_fields(entry), 2, 0) != 0:
        raise ValueError("it is of a machine that is not little-endian")
  return variables


def _block(
  content: bytes, offset: int, size: int
) -> Iterator[tuple[bytes, bytes]]:
  """Yields the keys and values of a block."""
  block = content[offset : offset + size + _TRAILER]
  if len(block) != size + _TRAILER or size < 4:
    raise ValueError("a block beyond its end")
  kind, crc = block[size], struct.unpack("<I", block[size + 1 :])[0]
  if crc32c.masked(np.frombuffer(block[: size + 1], np.uint8)) != crc:
    raise ValueError("the checksum of a block does not fit")
  if kind != 0:
    raise ValueError("a compressed block, which TensorFlow does not write")
  # At its end, places where keys are whole: to search, which we do not.
  (num_restarts,) = struct.unpack("<I", block[size - 4 : size])
  end, at, key = size - 4 - 4 * num_restarts, 0, b""
  while at < end:
    shared, at = _varint(block, at)
    own, at = _varint(block, at)
    length, at = _varint(block, at)
    if shared > len(key) or at + own + length > end:
      raise ValueError("an entry beyond its block")
    key = key[:shared] + block[at : at + own]
    if len(key) > _MAX_KEY:
      raise ValueError("a name that is too long")
    at += own
    yield key, block[at : at + length]
    at += length
  if at != end:
    raise ValueError("a block of another length")


def _variable(entry: bytes) -> Variable:
  """Reads a `BundleEntryProto`."""
  fields = _fields(entry)
  axes = _fields(_last(fields, 2, b"")).get(2, [])
  return Variable(
    type=_last(fields, 1, 0),
    shape=tuple(_last(_fields(axis), 1, 0) for axis in axes),
    shard=_last(fields, 3, 0),
    offset=_last(fields, 4, 0),
    size=_last(fields, 5, 0),
    crc=_last(fields, 6, 0),
    is_sliced=7 in fields,
  )


def _fields(message: int | bytes) -> dict[int, list[int | bytes]]:
  """Reads a protocol buffer: number of a field -> its values."""
  if not isinstance(message, bytes):
    raise ValueError("a number in place of a message")
  fields, at = {}, 0
  while at < len(message):
    tag, at = _varint(message, at)
    kind = tag & 7
    if kind == 0:
      value, at = _varint(message, at)
    elif kind in _FIXED:
      (value,) = struct.unpack_from(_FIXED[kind], message, at)
      at += struct.calcsize(_FIXED[kind])
    elif kind == 2:
      length, at = _varint(message, at)
      value = message[at : at + length]
      at += length
    else:
      raise ValueError(f"a field of the kind {kind}")
    fields.setdefault(tag >> 3, []).append(value)
  if at != len(message):
    raise ValueError("a field beyond its message")
  return fields


def _last(fields: dict[int, list], number: int, default: Any) -> Any:
  """Returns the last value of a field, as TensorFlow takes it."""
  value = fields.get(number, [default])[-1]
  if type(value) is not type(default):
    raise ValueError(f"a field {number} of another kind")
  return value


def _varint(content: bytes, at: int) -> tuple[int, int]:
  """Reads a number of 7 bits a byte; returns it and where it ends."""
  number = 0
  for i in range(_MAX_VARINT):
    byte = content[at + i]
    number |= (byte & 127) << 7 * i
    if byte < 128:
      return number, at + i + 1
  raise ValueError("a number without end")
