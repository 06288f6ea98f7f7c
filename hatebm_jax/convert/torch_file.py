"""PyTorch's .pth files, read without PyTorch and without running anything.

Since PyTorch 1.6 a .pth is a zip: `NAME/data.pkl` describes the content as a
pickle, `NAME/data/0`, `NAME/data/1`, ... are the values. Before, it was five
pickles in a row (a magic number, the version, the machine, the content, the
keys of its values), then each key's values behind their number.

A pickle is a program that may call any function. Here it is read by an
interpreter of our own, which knows the few instructions that `torch.save`
writes for a dictionary of tensors and makes nothing but dictionaries, lists,
numbers, text and `Tensor`s. Memory is claimed for no more than the file has.
"""

import contextlib
import itertools
import math
import mmap
import os
import pickletools
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hatebm_jax.convert import network
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.run import npz

_READ_ERRORS = (
  zipfile.BadZipFile,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  OverflowError,
  RuntimeError,  # A zip that is encrypted, or of an unknown version.
  TypeError,
  ValueError,
)


# How a file from before PyTorch 1.6 begins.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001
# An instruction of one byte makes a dictionary of 64; a thousand tensors take
# some 30,000.
_MAX_INSTRUCTIONS = 300_000


class _Storage(NamedTuple):
  """Values of one or several tensors."""

  key: str
  dtype: np.dtype
  size: int


class Tensor(NamedTuple):
  """Where the values of a tensor are.

  Attributes:
    storage: the values that it is a part of.
    offset: of the first element, in elements.
    shape: of the tensor.
    strides: in elements.
  """

  storage: _Storage
  offset: int
  shape: Shape
  strides: Shape

  @property
  def dtype(self) -> np.dtype:
    """Type of the elements."""
    return self.storage.dtype


def load(path: network.Path) -> Any:
  """Reads the description of a file's content, no values yet.

  Args:
    path: of a .pth.

  Returns:
    What was saved: dictionaries, lists, tuples, numbers and text, with a
    `Tensor` for each tensor.

  Raises:
    ConvertError: if the file is missing, damaged, or holds more than tensors.
  """
  try:
    if _is_old(path):
      with _mapped(path) as file:
        return _read_old_header(file)[0]
    with _archive(path) as (archive, folder):
      return _interpret(_stored(archive, folder + "data.pkl"))[0]
  except _READ_ERRORS as error:
    raise _bad_file(path, error) from error


def read(
  path: network.Path, tensors: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
  """Reads the values of tensors.

  Args:
    path: of the file.
    tensors: from `load` of this file, by any names.

  Raises:
    ConvertError: if the file is damaged.
  """
  try:
    needed = sum(
      math.prod(tensor.shape) * tensor.dtype.itemsize
      for tensor in tensors.values()
    )
    # Each of them may be all of one storage.
    if needed > os.path.getsize(path):
      raise ValueError(f"tensors of {needed} bytes, more than the file has")
    if _is_old(path):
      stored = _read_old_values(path)
      return {
        name: _values(stored[tensor.storage.key], "<", tensor)
        for name, tensor in tensors.items()
      }
    with _archive(path) as (archive, folder):
      order = _byte_order(archive, folder)
      return {
        name: _values(
          _stored(archive, f"{folder}data/{tensor.storage.key}"), order, tensor
        )
        for name, tensor in tensors.items()
      }
  except _READ_ERRORS as error:
    raise _bad_file(path, error) from error


def _is_old(path: network.Path) -> bool:
  """Says whether the file is no zip but begins with a pickle's protocol 2."""
  with open(path, "rb") as file:
    return file.read(2) == b"\x80\x02"


@contextlib.contextmanager
def _mapped(path: network.Path) -> Iterator[mmap.mmap]:
  """Opens a file whose reads claim memory for what there is, not for more."""
  with (
    open(path, "rb") as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
  ):
    yield mapped


def _read_old_header(file: mmap.mmap) -> tuple[Any, list[_Storage]]:
  """Reads the pickles of a file from before PyTorch 1.6.

  Returns:
    The content, and the storages in the order of their values, which follow.
  """
  magic, version, machine = (_interpret(file)[0] for _ in range(3))
  if (magic, version) != (_OLD_MAGIC, _OLD_VERSION):
    raise ValueError("it does not begin as PyTorch's files do")
  if not isinstance(machine, dict) or machine.get("little_endian") is not True:
    raise ValueError("it is of a machine that is not little-endian")
  content, storages = _interpret(file)
  keys, _ = _interpret(file)
  # Comparing lists of lists that share elements may take for ever.
  if not isinstance(keys, list) or not all(isinstance(x, str) for x in keys):
    raise ValueError("its list of values holds no names")
  by_key = {storage.key: storage for storage in storages}
  if len(by_key) != len(set(storages)) or sorted(by_key) != sorted(keys):
    raise ValueError("its tensors do not fit its list of values")
  return content, [by_key[key] for key in keys]


def _read_old_values(path: network.Path) -> dict[str, bytes]:
  """Reads the values of a file from before PyTorch 1.6 by their key."""
  with _mapped(path) as file:
    _, storages = _read_old_header(file)
    values = {}
    for storage in storages:
      number = int.from_bytes(file.read(8), "little")
      if number != storage.size:
        raise ValueError(
          f"{storage.key} has {number} values, not {storage.size}"
        )
      values[storage.key] = file.read(number * storage.dtype.itemsize)
    return values


def _bad_file(path: network.Path, error: Exception) -> ConvertError:
  return ConvertError(
    f"{path}: expected a .pth of tensors as PyTorch saves it, found a missing, "
    f"damaged or foreign file ({network.one_line(error)}). Copy it anew, or "
    "save the network's state_dict again."
  )


@contextlib.contextmanager
def _archive(path: network.Path) -> Iterator[tuple[zipfile.ZipFile, str]]:
  """Opens a zip; yields it and the folder that all is in, as in `netG/`."""
  with zipfile.ZipFile(path) as archive:
    ends = "/data.pkl"
    names = [x for x in npz.zip_parts(archive, path) if x.endswith(ends)]
    if len(names) != 1:
      raise ValueError(f"{len(names)} files data.pkl in the zip")
    yield archive, names[0].removesuffix("data.pkl")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
  """Reads a file of the zip; never more bytes than the zip itself has."""
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f"{name} is compressed, which PyTorch never does")
  if info.file_size != info.compress_size:
    raise ValueError(f"{name} has two sizes")
  return archive.read(name)


def _byte_order(archive: zipfile.ZipFile, folder: str) -> str:
  """Returns NumPy's sign for the order; files before PyTorch 2.1 have none."""
  name = folder + "byteorder"
  if name not in archive.namelist():
    return "<"
  order = _stored(archive, name)
  return {b"little": "<", b"big": ">"}[order]


def _values(content: bytes, order: str, tensor: Tensor) -> np.ndarray:
  """Returns a tensor of the bytes of its storage."""
  storage, offset, shape, strides = tensor
  dtype = storage.dtype.newbyteorder(order)
  needed = storage.size * dtype.itemsize
  # Also for safety: the strides were checked against this size.
  if len(content) != needed:
    raise ValueError(f"{storage.key} has {len(content)} bytes, not {needed}")
  values = np.frombuffer(content, dtype)[offset:]
  steps = [stride * dtype.itemsize for stride in strides]
  view = np.lib.stride_tricks.as_strided(values, shape, steps, writeable=False)
  return view.astype(storage.dtype)


def _storage(kind, dtype, key, location, size, view=None) -> _Storage:
  """Checks what a pickle says of a file of values."""
  del location  # The device that the tensor was on.
  if view is not None:
    raise ValueError("a storage that is a view of another one")
  if kind != "storage" or not isinstance(dtype, np.dtype):
    raise ValueError("a persistent object that is no storage of numbers")
  if not isinstance(key, str) or not _is_natural(size):
    raise ValueError("a storage without name or size")
  return _Storage(key, dtype, size)


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
  """Checks that a tensor lies within its storage."""
  if not isinstance(storage, _Storage):
    raise ValueError("a tensor without storage")
  if not isinstance(shape, tuple) or not isinstance(strides, tuple):
    raise ValueError("a tensor without shape or strides")
  if not all(map(_is_natural, (offset, *shape, *strides))):
    raise ValueError("a tensor whose shape, strides or offset are no numbers")
  last = offset + sum(
    (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
  )
  # The first bound is for strides of zero, which make much of little.
  if math.prod(shape) > storage.size or last >= storage.size:
    raise ValueError(f"a tensor {shape} beyond its {storage.size} values")
  return Tensor(storage, offset, shape, strides)


def _is_natural(x: Any) -> bool:
  return type(x) is int and 0 <= x <= sys.maxsize


# What a pickle may name. Anything else ends the reading.
_GLOBALS = {
  "collections OrderedDict": dict,
  "torch._utils _rebuild_tensor_v2": _tensor,
} | {
  f"torch {name}Storage": np.dtype(code)
  for name, code in {
    "Bool": "?",
    "Byte": "u1",
    "Char": "i1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Half": "f2",
    "Float": "f4",
    "Double": "f8",
  }.items()
}


def _call(function, arguments):
  """The two calls that `torch.save` writes."""
  if function is dict and arguments == ():
    return {}
  if function is _tensor and isinstance(arguments, tuple):
    return _tensor(*arguments)
  raise ValueError("a call that is not of a tensor")


def _extend(stack: list, items: list) -> None:
  if not isinstance(stack[-1], list):
    raise ValueError("elements for what is no list")
  stack[-1].extend(items)


def _set_items(stack: list, items: list) -> None:
  keys, values = items[::2], items[1::2]
  if not isinstance(stack[-1], dict):
    raise ValueError("items for what is no dictionary")
  # Hashing a tuple of tuples may take for ever.
  if not all(isinstance(key, str | int) for key in keys):
    raise ValueError("a key that is neither text nor a number")
  stack[-1].update(zip(keys, values, strict=True))


# Instructions of a pickle, named as in `pickletools`. Those that push a value
# of their own ...
_PUSH = (
  "BINUNICODE",
  "SHORT_BINUNICODE",
  "BININT",
  "BININT1",
  "BININT2",
  "LONG1",
  "BINFLOAT",
)
_PUSH_NEW = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_TUPLE": tuple,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
}
# ... and those that take values from the stack: how many (None: down to the
# last mark), and what they do with them.
_TAKE = {
  "TUPLE": (None, lambda stack, items: stack.append(tuple(items))),
  "TUPLE1": (1, lambda stack, items: stack.append(tuple(items))),
  "TUPLE2": (2, lambda stack, items: stack.append(tuple(items))),
  "TUPLE3": (3, lambda stack, items: stack.append(tuple(items))),
  "APPEND": (1, _extend),
  "APPENDS": (None, _extend),
  "SETITEM": (2, _set_items),
  "SETITEMS": (None, _set_items),
  "REDUCE": (2, lambda stack, items: stack.append(_call(*items))),
  # The attributes of a state_dict: versions of its modules.
  "BUILD": (1, lambda stack, items: None),
}


def _interpret(pickle: bytes | mmap.mmap) -> tuple[Any, list[_Storage]]:
  """Reads a pickle; see the module's docstring.

  Args:
    pickle: or an open file, which is left behind the pickle's end.

  Returns:
    The object that it describes, and the storages that it names.
  """
  stack, marks, memo, storages = [], [], {}, []
  instructions = pickletools.genops(pickle)
  for opcode, argument, _ in itertools.islice(instructions, _MAX_INSTRUCTIONS):
    name = opcode.name
    if name in _PUSH:
      stack.append(argument)
    elif name in _PUSH_NEW:
      stack.append(_PUSH_NEW[name]())
    elif name in _TAKE:
      number, function = _TAKE[name]
      start = marks.pop() if number is None else len(stack) - number
      if start < (marks[-1] if marks else 0) or start > len(stack):
        raise ValueError(f"{name} finds too little on the stack")
      items = stack[start:]
      del stack[start:]
      function(stack, items)
    elif name == "GLOBAL":
      if argument not in _GLOBALS:
        raise ValueError(f"it asks for {argument[:80]!r}, which is refused")
      stack.append(_GLOBALS[argument])
    elif name == "BINPERSID":
      storages.append(_storage(*stack.pop()))
      stack.append(storages[-1])
    elif name == "MARK":
      marks.append(len(stack))
    elif name in ("BINPUT", "LONG_BINPUT"):
      memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
      stack.append(memo[argument])
    elif name == "STOP":
      return stack.pop(), storages
    elif name != "PROTO":
      raise ValueError(f"the instruction {name}, which is refused")
  raise ValueError("it has no end, or is longer than any of tensors")
