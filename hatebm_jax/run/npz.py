"""Arrays in .npz files: written whole or not at all, read with suspicion.

A file may come from a stranger. Nothing in it is run (no pickles, no objects),
and memory is claimed for an array only when the file can really hold it:

- names are unique, and the parts together are no larger than the file;
- a part is stored or deflated (other methods claim memory as a part of the
  file asks for it), not encrypted, and unpacks to no more than 100 times its
  packed size and 1 MiB, where 20 bytes could fill 20 kB: real images and
  weights shrink by less;
- the array that its header announces has exactly the bytes that the part has.
"""

import contextlib
import io
import math
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np

from hatebm_jax import errors
from hatebm_jax.run import workdir

# What zipfile and NumPy raise of damaged and foreign files.
_READ_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  struct.error,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  OverflowError,
  RuntimeError,  # Of an encrypted part, or a version that is not known.
  TypeError,
  ValueError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_RATIO, _MAX_EXTRA = 100, 2**20
_KINDS = "biufcSU"  # numbers and text


class FileError(errors.UserError):
  """An .npz is missing, damaged or foreign; the message says what was found."""


class Header(NamedTuple):
  """What an array is, known before it is read."""

  shape: tuple[int, ...]
  dtype: np.dtype


def save(file: pathlib.Path, **arrays: np.ndarray) -> None:
  """Writes an npz whole or not at all."""
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  workdir.write_atomic(file, buffer.getvalue())


def read(
  file: str | os.PathLike[str],
  names: Sequence[str],
  what: str,
  expected: str,
  optional: Sequence[str] = (),
) -> dict[str, np.ndarray]:
  """Reads arrays of an npz.

  Args:
    file: to read.
    names: of the arrays, all of which must be there.
    what: the file is, for the message.
    expected: of the file, for the message.
    optional: arrays that are read where they are there.

  Raises:
    ConfigError: if it cannot be read, or an array is missing.
  """
  try:
    return arrays(file, names, optional)
  except FileError as error:
    raise errors.ConfigError(
      f"{what}: expected {expected}, found {error}."
    ) from error


def headers(file: str | os.PathLike[str]) -> dict[str, Header]:
  """Returns what each array of an npz is; no array is read.

  Raises:
    FileError: if a part of the file is not an array that we read.
  """
  with _opened(file) as (archive, parts):
    return {name: _check(archive, part) for name, part in parts.items()}


def arrays(
  file: str | os.PathLike[str],
  names: Iterable[str],
  optional: Iterable[str] = (),
) -> dict[str, np.ndarray]:
  """Reads arrays of an npz.

  Args:
    file: to read.
    names: of the arrays, all of which must be there.
    optional: arrays that are read where they are there.

  Raises:
    FileError: if it cannot be read, or an array is missing.
  """
  with _opened(file) as (archive, parts):
    wanted = [*names, *(name for name in optional if name in parts)]
    missing = [name for name in wanted if name not in parts]
    if missing:
      raise FileError(f"no {missing[0]} in it, only {sorted(parts)[:8]}")
    return {name: _read(archive, parts[name]) for name in wanted}


def zip_parts(
  archive: zipfile.ZipFile, file: str | os.PathLike[str]
) -> dict[str, zipfile.ZipInfo]:
  """Returns the parts of a zip by their names.

  Args:
    archive: of the file.
    file: that it was opened from.

  Raises:
    FileError: if names are not unique, or the parts together are larger than
      the file: they overlap, or claim more than there is.
  """
  infos = archive.infolist()
  parts = {info.filename: info for info in infos}
  if len(parts) != len(infos):
    raise FileError("two parts of one name")
  if sum(info.compress_size for info in infos) > os.path.getsize(file):
    raise FileError("parts that are larger than the file")
  return parts


@contextlib.contextmanager
def _opened(
  file: str | os.PathLike[str],
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
  """Opens an npz; yields it and its parts by the names of their arrays."""
  try:
    with zipfile.ZipFile(file) as archive:
      infos = zip_parts(archive, file)
      parts = {name.removesuffix(".npy"): x for name, x in infos.items()}
      if len(parts) != len(infos):
        raise FileError("two arrays of one name")
      yield archive, parts
  except FileError:
    raise
  except _READ_ERRORS as error:
    found = " ".join(str(error).split()) or type(error).__name__
    raise FileError(found) from error


def _check(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Header:
  """Checks a part as the module says."""
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
  if dtype.kind not in _KINDS or not dtype.itemsize:
    raise FileError(f"{name} of the type {dtype}, not numbers or text")
  size = start + math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0 or size != part.file_size:
    raise FileError(f"{name} of {part.file_size} bytes for the shape {shape}")
  return Header(shape, dtype)


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
  """Reads the header of an array."""
  version = np.lib.format.read_magic(file)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  # Version 3 is for names of fields, which arrays of numbers do not have.
  if version not in readers:
    raise FileError(f"{name} in the format version {version}")
  try:
    shape, _, dtype = readers[version](file)
  except Exception as error:
    # NumPy parses a Python literal and makes a dtype of it: syntax, tokenizer,
    # recursion, memory and type errors, of which no list is complete.
    raise FileError(f"{name} with a header that cannot be read") from error
  return shape, dtype


def _read(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> np.ndarray:
  _check(archive, part)
  with archive.open(part) as file:
    return np.lib.format.read_array(file, allow_pickle=False)
