"""Arrays in .npz files: written whole or not at all, read without pickles."""

import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from hatebm_jax import errors

# What NumPy and zipfile raise of damaged and foreign files.
READ_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  AttributeError,  # Of an .npy in place of an .npz.
  EOFError,
  KeyError,
  NotImplementedError,
  OSError,
  TypeError,
  ValueError,
)


def save(file: pathlib.Path, **arrays: np.ndarray) -> None:
  """Writes an npz whole or not at all."""
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  partial = file.with_name(file.name + ".partial")
  partial.write_bytes(buffer.getvalue())
  os.replace(partial, file)


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
    with np.load(file, allow_pickle=False) as arrays:
      extra = [name for name in optional if name in arrays]
      return {name: arrays[name] for name in (*names, *extra)}
  except READ_ERRORS as error:
    raise errors.ConfigError(
      f"{what}: expected {expected}, found {error}."
    ) from error
