"""The one reader and writer of .npz files, and the reader of .npy files.

A file may come from a stranger. Nothing in it is run (no pickles, no objects),
and memory is claimed for an array only if the file can really hold it:

- The names are unique, and the parts together are no larger than the file.
- A part is stored or deflated: other methods claim as much memory as the file
  asks for. It is not encrypted. It unpacks to at most 100 times its packed size
  plus 1 MiB; deflate itself would allow 1,000 times. Real images and weights
  shrink by less.
- The array that a header announces has exactly the bytes that the part has.
"""

import contextlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from etils import epath

from hatebm_jax import errors
from hatebm_jax.run import files

# zipfile and NumPy raise these for damaged and foreign files.
_READ_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  struct.error,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  OverflowError,
  RuntimeError,  # The part is encrypted, or its version is not known.
  TypeError,
  ValueError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_RATIO, _MAX_EXTRA = 100, 2**20
_KINDS = "biufcSU"  # These are numbers and text.


class FileError(errors.UserError):
  """An .npz is missing, damaged or foreign; the message says what was found.

  The message is a part of a sentence: callers add the file and the advice.
  """


class Header(NamedTuple):
  """Shape and type of an array that is not read yet."""

  shape: tuple[int, ...]
  dtype: np.dtype


def save(file: epath.PathLike, **arrays: np.ndarray) -> None:
  """Writes an .npz whole or not at all.

  Args:
    file: Path of the file.
    **arrays: Arrays by name.
  """
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  files.write_atomic(file, buffer.getvalue())


def read(
  file: epath.PathLike,
  names: Sequence[str],
  what: str,
  expected: str,
  optional: Sequence[str] = (),
) -> dict[str, np.ndarray]:
  """Reads arrays of an .npz that a config or a user names.

  Args:
    file: Path of the file.
    names: Names of arrays that must be there.
    what: Start of the message: the name of the file.
    expected: Part of the message: what the file should hold.
    optional: Names of arrays that are read if they are there.

  Returns:
    The arrays by name.

  Raises:
    ConfigError: If the file cannot be read, or an array is missing.
  """
  try:
    return arrays(file, names, optional)
  except FileError as error:
    raise errors.ConfigError(
      f"{what}: expected {expected}, found {error}."
    ) from error


def headers(file: epath.PathLike) -> dict[str, Header]:
  """Returns shape and type of each array of an .npz; no array is read.

  Raises:
    FileError: If a part of the file is not an array that can be read safely.
  """
  with _opened(file) as (archive, parts):
    return {name: _check(archive, part) for name, part in parts.items()}


def arrays(
  file: epath.PathLike,
  names: Iterable[str],
  optional: Iterable[str] = (),
) -> dict[str, np.ndarray]:
  """Reads arrays of an .npz.

  Args:
    file: Path of the file.
    names: Names of arrays that must be there.
    optional: Names of arrays that are read if they are there.

  Returns:
    The arrays by name.

  Raises:
    FileError: If the file cannot be read, or an array is missing.
  """
  with _opened(file) as (archive, parts):
    wanted = [*names, *(name for name in optional if name in parts)]
    missing = [name for name in wanted if name not in parts]
    if missing:
      raise FileError(f"no {missing[0]} in it, only {sorted(parts)[:8]}")
    return {name: _read(archive, parts[name]) for name in wanted}


def all_arrays(file: epath.PathLike) -> dict[str, np.ndarray]:
  """Reads all arrays of an .npz.

  Args:
    file: Path of the file.

  Returns:
    The arrays by name.

  Raises:
    FileError: If the file cannot be read.
  """
  with _opened(file) as (archive, parts):
    return {name: _read(archive, part) for name, part in parts.items()}


def array(file: epath.PathLike) -> np.ndarray:
  """Reads the array of an .npy, as carefully as those of an .npz.

  Args:
    file: Path of the file.

  Raises:
    FileError: If the file cannot be read.
  """
  try:
    with files.open_binary(file) as opened:
      shape, dtype = _header("the file", opened)
      start = opened.tell()
      _check_array("the file", shape, dtype, start, opened.seek(0, os.SEEK_END))
      opened.seek(0)
      return np.lib.format.read_array(opened, allow_pickle=False)
  except FileError:
    raise
  except _READ_ERRORS as error:
    raise _file_error(error) from error


def zip_parts(
  archive: zipfile.ZipFile, size: int
) -> dict[str, zipfile.ZipInfo]:
  """Returns the parts of a zip by their names.

  Args:
    archive: The opened zip.
    size: Size of its file in bytes.

  Raises:
    FileError: If names are not unique, or if the parts together are larger
      than the file: then they overlap, or claim more than there is.
  """
  infos = archive.infolist()
  parts = {info.filename: info for info in infos}
  if len(parts) != len(infos):
    raise FileError("two parts of one name")
  if sum(info.compress_size for info in infos) > size:
    raise FileError("parts that are larger than the file")
  return parts


@contextlib.contextmanager
def _opened(
  file: epath.PathLike,
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
  """Opens an .npz; yields it and its parts by the names of their arrays."""
  try:
    with files.open_binary(file) as opened, zipfile.ZipFile(opened) as archive:
      infos = zip_parts(archive, opened.seek(0, os.SEEK_END))
      parts = {name.removesuffix(".npy"): x for name, x in infos.items()}
      if len(parts) != len(infos):
        raise FileError("two arrays of one name")
      yield archive, parts
  except FileError:
    raise
  except _READ_ERRORS as error:
    raise _file_error(error) from error


def _file_error(error: Exception) -> FileError:
  """Returns the message of another error as one line."""
  return FileError(" ".join(str(error).split()) or type(error).__name__)


def _check(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Header:
  """Checks a part by the rules in the docstring of this module."""
  name = part.filename
  if part.compress_type not in _METHODS:
    raise FileError(f"{name} packed in a way that is refused")
  if part.file_size > _MAX_RATIO * part.compress_size + _MAX_EXTRA:
    raise FileError(
      f"{name}, which would unpack {part.compress_size} bytes to "
      f"{part.file_size}"
    )
  with archive.open(part) as file:
    shape, dtype = _header(name, file)
    start = file.tell()
  return _check_array(name, shape, dtype, start, part.file_size)


def _check_array(
  name: str, shape: tuple[int, ...], dtype: np.dtype, start: int, size: int
) -> Header:
  """Checks that `size` bytes hold a header of `start` bytes and its array."""
  if dtype.kind not in _KINDS or not dtype.itemsize:
    raise FileError(f"{name} of the type {dtype}, not numbers or text")
  expected = start + math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0 or expected != size:
    raise FileError(f"{name} of {size} bytes for the shape {shape}")
  return Header(shape, dtype)


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
  """Reads the header of an array."""
  version = np.lib.format.read_magic(file)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  # Version 3 exists for names of fields, which arrays of numbers do not have.
  if version not in readers:
    raise FileError(f"{name} in the format version {version}")
  try:
    shape, _, dtype = readers[version](file)
  except Exception as error:
    # NumPy parses a Python literal and makes a dtype of it. That raises syntax,
    # tokenizer, recursion, memory and type errors: no list of them is complete.
    raise FileError(f"{name} with a header that cannot be read") from error
  return shape, dtype


def _read(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> np.ndarray:
  _check(archive, part)
  with archive.open(part) as file:
    return np.lib.format.read_array(file, allow_pickle=False)
