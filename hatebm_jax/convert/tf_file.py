"""Reads TensorFlow 2's checkpoints without TensorFlow.

TensorFlow's own reader claims the memory that a damaged table asks for. Here
everything is first checked against the sizes of the files.

`NAME.index` is a table in LevelDB's format. It has blocks of sorted keys and
values, a block that lists these blocks, and a footer with the place of that
list. A key is the name of a variable. Its value is a protocol buffer,
`BundleEntryProto` of TensorFlow's `tensor_bundle.proto`. The entry with the
empty key is the header, `BundleHeaderProto`. The numbers are in
`NAME.data-00000-of-00001` and so on. Blocks and values have a CRC-32C.
"""

import math
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from hatebm_jax.convert import network
from hatebm_jax.convert.network import ConvertError, Shape

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TRAILER = 5  # bytes after a block: its kind and its CRC
_MAX_INDEX, _MAX_KEY, _MAX_VARINT = 2**26, 1024, 10  # bytes
_MAX_ENTRIES = 10_000
_FIXED = {1: "<Q", 5: "<I"}  # numbers of fixed size in protocol buffers

# TensorFlow's numbers of types.
_TYPES = {1: "float32", 2: "float64", 3: "int32", 7: "string", 9: "int64"}
_TYPES |= {14: "bfloat16", 19: "float16"}


class Variable(NamedTuple):
  """Place of a variable's values.

  Attributes:
    dtype: TensorFlow's name of the type.
    shape: Shape of the variable.
    file: Path of the .data file.
    offset: Start of the values in that file, in bytes.
    size: Size of the values in bytes.
    crc: Masked CRC-32C of the values.
    is_sliced: True if the values are stored in several pieces.
  """

  dtype: str
  shape: Shape
  file: str
  offset: int
  size: int
  crc: int
  is_sliced: bool


def table(prefix: str) -> dict[str, Variable]:
  """Reads which variables a checkpoint has, but no values.

  Args:
    prefix: Common beginning of the paths of the checkpoint's files.

  Raises:
    ConvertError: If the .index file is missing, damaged or foreign.
  """
  try:
    entries = _entries(f"{prefix}.index")
    if b"" not in entries:
      raise ValueError("it has no header")
    header = _fields(entries.pop(b""))
    if _last(header, 2, 0) != 0:
      raise ValueError("it is of a machine that is not little-endian")
    num_files = _last(header, 1, 0)
    return {
      key.decode(): _variable(entry, prefix, num_files)
      for key, entry in entries.items()
    }
  except (IndexError, OSError, ValueError, struct.error) as error:
    raise ConvertError(
      f"{prefix}.index: expected the table of a TensorFlow 2 checkpoint, found "
      f"a damaged or foreign file ({network.one_line(error)}). Copy it again."
    ) from error


def read(name: str, variable: Variable) -> np.ndarray:
  """Reads the values of a float32 variable.

  Args:
    name: Name of the variable for the message.
    variable: Place of its values, which `table` returned.

  Raises:
    ConvertError: If the .data file is missing or damaged.
  """
  try:
    needed = 4 * math.prod(variable.shape)
    if variable.dtype != "float32" or variable.is_sliced:
      raise ValueError("they are not stored as float32 in one piece")
    if variable.size != needed:
      raise ValueError(f"{variable.size} bytes, not {needed}")
    with open(variable.file, "rb") as file:
      if variable.offset + needed > os.path.getsize(variable.file):
        raise ValueError("they are beyond the file's end")
      file.seek(variable.offset)
      content = file.read(needed)
    if _masked_crc(content) != variable.crc:
      raise ValueError("the checksum does not fit")
    values = np.frombuffer(content, "<f4").reshape(variable.shape)
    return values.astype(np.float32, copy=False)
  except (OSError, ValueError) as error:
    raise ConvertError(
      f"{variable.file}: the values of {name} cannot be read, the file is "
      f"damaged ({network.one_line(error)}). Copy it again."
    ) from error


def _masked_crc(content: bytes) -> int:
  """Returns the CRC-32C of bytes, masked as TensorFlow stores it."""
  crc = google_crc32c.value(content)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _entries(path: str) -> dict[bytes, bytes]:
  """Returns the keys and values of a table."""
  if os.path.getsize(path) > _MAX_INDEX:
    raise ValueError("larger than any table of a network")
  with open(path, "rb") as file:
    content = file.read()
  if len(content) < _FOOTER or content[-8:] != _MAGIC.to_bytes(8, "little"):
    raise ValueError("it does not end as a table does")
  # The footer has the places of the statistics and of the list of blocks.
  _, _, *place = _varints(content[-_FOOTER:-8], 4)
  entries, last = {}, None
  for _, value in _block(content, *place):
    for key, entry in _block(content, *_varints(value, 2)):
      # Sorted keys are unique, and no block can be listed twice.
      if last is not None and key <= last:
        raise ValueError("its keys are not sorted")
      if len(entries) == _MAX_ENTRIES:
        raise ValueError(f"more than {_MAX_ENTRIES} entries")
      entries[key], last = entry, key
  return entries


def _block(
  content: bytes, offset: int, size: int
) -> Iterator[tuple[bytes, bytes]]:
  """Yields the keys and values of a block."""
  block = content[offset : offset + size + _TRAILER]
  if len(block) != size + _TRAILER or size < 4:
    raise ValueError("a block beyond its end")
  kind, crc = block[size], struct.unpack("<I", block[size + 1 :])[0]
  if _masked_crc(block[: size + 1]) != crc:
    raise ValueError("the checksum of a block does not fit")
  if kind != 0:
    raise ValueError("a compressed block, which TensorFlow does not write")
  # A block ends with the places where keys are whole. They serve a search,
  # which is not needed here.
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


def _variable(entry: bytes, prefix: str, num_files: int) -> Variable:
  """Reads a `BundleEntryProto`."""
  fields = _fields(entry)
  axes = _fields(_last(fields, 2, b"")).get(2, [])
  number = _last(fields, 1, 0)
  return Variable(
    dtype=_TYPES.get(number, f"number {number}"),
    shape=tuple(_last(_fields(axis), 1, 0) for axis in axes),
    file=f"{prefix}.data-{_last(fields, 3, 0):05d}-of-{num_files:05d}",
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
  """Returns the last value of a field, which is the one that counts."""
  value = fields.get(number, [default])[-1]
  if type(value) is not type(default):
    raise ValueError(f"a field {number} of another kind")
  return value


def _varints(content: bytes, count: int) -> list[int]:
  """Reads the first numbers of 7 bits in a byte."""
  numbers, at = [], 0
  for _ in range(count):
    number, at = _varint(content, at)
    numbers.append(number)
  return numbers


def _varint(content: bytes, at: int) -> tuple[int, int]:
  """Reads a number of 7 bits in a byte; returns it and where it ends."""
  number = 0
  for i in range(_MAX_VARINT):
    byte = content[at + i]
    number |= (byte & 127) << 7 * i
    if byte < 128:
      return number, at + i + 1
  raise ValueError("a number without end")
