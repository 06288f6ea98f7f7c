"""Reads PyTorch's .pth files without PyTorch and without running anything.

Since PyTorch 1.6 a .pth is a zip. In it `NAME/data.pkl` describes the content
as a pickle, and `NAME/data/0`, `NAME/data/1`, ... are the values. Before, a
.pth was five pickles in a row: a magic number, the version, the machine, the
content and the keys of its values. After them came the values of each key,
with their number in front. `_use_new_zipfile_serialization=False` still writes
this format.

`torch_pickle` reads the pickles. No more memory is claimed than the file has.
"""

import contextlib
import math
import mmap
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hatebm_jax.convert import network, torch_pickle
from hatebm_jax.convert.network import ConvertError
from hatebm_jax.convert.torch_pickle import Storage, Tensor
from hatebm_jax.run import npz

_READ_ERRORS = (
  zipfile.BadZipFile,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  OverflowError,
  RuntimeError,  # A zip that is encrypted or of an unknown version raises it.
  TypeError,
  ValueError,
)

# A pickle of one of the protocols 2 to 5 begins with one of these.
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
# A file from before PyTorch 1.6 begins with these.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001


def load(path: network.Path) -> Any:
  """Reads the description of a file's content, but no values.

  Args:
    path: Path of a .pth.

  Returns:
    What was saved: dictionaries, lists, tuples, numbers and text, with a
    `Tensor` for each tensor.

  Raises:
    ConvertError: If the file is missing, damaged, or holds more than tensors.
  """
  try:
    if _is_old(path):
      with _mapped(path) as file:
        return _read_old_header(file)[0]
    with _archive(path) as (archive, folder):
      content = _stored(archive, folder + "data.pkl")
      return torch_pickle.interpret(content)[0]
  except _READ_ERRORS as error:
    raise _bad_file(path, error) from error


def read(
  path: network.Path, tensors: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
  """Reads the values of tensors.

  Args:
    path: Path of the file.
    tensors: Tensors that `load` returned for this file, under any names.

  Raises:
    ConvertError: If the file is damaged.
  """
  try:
    needed = sum(
      math.prod(tensor.shape) * tensor.dtype.itemsize
      for tensor in tensors.values()
    )
    # Each tensor may be a view of the same storage.
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
  """Returns whether the file is no zip but begins as a pickle."""
  with open(path, "rb") as file:
    return file.read(2) in _PICKLES


@contextlib.contextmanager
def _mapped(path: network.Path) -> Iterator[mmap.mmap]:
  """Opens a file so that a read claims no more memory than the file has."""
  with (
    open(path, "rb") as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
  ):
    yield mapped


def _read_old_header(file: mmap.mmap) -> tuple[Any, list[Storage]]:
  """Reads the pickles of a file from before PyTorch 1.6.

  Returns:
    The content, and the storages in the order of their values, which follow.
  """
  magic, version, machine = (torch_pickle.interpret(file)[0] for _ in range(3))
  if (magic, version) != (_OLD_MAGIC, _OLD_VERSION):
    raise ValueError("it does not begin as PyTorch's files do")
  if not isinstance(machine, dict) or machine.get("little_endian") is not True:
    raise ValueError("it is of a machine that is not little-endian")
  content, storages = torch_pickle.interpret(file)
  keys, _ = torch_pickle.interpret(file)
  # Comparing lists of lists that share elements may take for ever.
  if not isinstance(keys, list) or not all(isinstance(x, str) for x in keys):
    raise ValueError("its list of values holds no names")
  by_key = {storage.key: storage for storage in storages}
  if len(by_key) != len(set(storages)) or sorted(by_key) != sorted(keys):
    raise ValueError("its tensors do not fit its list of values")
  return content, [by_key[key] for key in keys]


def _read_old_values(path: network.Path) -> dict[str, bytes]:
  """Reads the values of a file from before PyTorch 1.6 by their keys."""
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
    f"damaged or foreign file ({network.one_line(error)}). Copy it again, or "
    "save the network's state_dict alone: torch.save(net.state_dict(), PATH)."
  )


@contextlib.contextmanager
def _archive(path: network.Path) -> Iterator[tuple[zipfile.ZipFile, str]]:
  """Opens a zip; yields it and the folder of its content, such as `netG/`."""
  with zipfile.ZipFile(path) as archive:
    ends = "/data.pkl"
    parts = npz.zip_parts(archive, os.path.getsize(path))
    names = [x for x in parts if x.endswith(ends)]
    if len(names) != 1:
      raise ValueError(f"{len(names)} files data.pkl in the zip")
    yield archive, names[0].removesuffix("data.pkl")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
  """Reads a part of the zip; it never has more bytes than the zip itself."""
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f"{name} is compressed, which PyTorch never does")
  if info.file_size != info.compress_size:
    raise ValueError(f"{name} has two sizes")
  return archive.read(name)


def _byte_order(archive: zipfile.ZipFile, folder: str) -> str:
  """Returns NumPy's sign of the byte order.

  Files from before PyTorch 2.1 do not name their byte order; it is `<`.
  """
  name = folder + "byteorder"
  if name not in archive.namelist():
    return "<"
  order = _stored(archive, name)
  return {b"little": "<", b"big": ">"}[order]


def _values(content: bytes, order: str, tensor: Tensor) -> np.ndarray:
  """Returns the values of a tensor from the bytes of its storage."""
  storage, offset, shape, strides = tensor
  # bfloat16 is no type of NumPy's and has no byte order, so bits are read.
  dtype = np.dtype(f"{order}u{storage.dtype.itemsize}")
  needed = storage.size * dtype.itemsize
  # `as_strided` is safe only with this size: strides were checked against it.
  if len(content) != needed:
    raise ValueError(f"{storage.key} has {len(content)} bytes, not {needed}")
  values = np.frombuffer(content, dtype)[offset:]
  steps = [stride * dtype.itemsize for stride in strides]
  view = np.lib.stride_tricks.as_strided(values, shape, steps, writeable=False)
  return view.astype(dtype.newbyteorder("=")).view(storage.dtype)
