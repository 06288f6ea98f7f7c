"""The one way to the files that a run reads and writes.

Every path of a run is an `etils.epath.Path`, so that a bucket can take the
place of a folder later. Today all paths are local: flock, fsync and orbax get
them through `os.fspath`. Files are written whole or not at all, except for
files that grow by lines.
"""

import glob
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from hatebm_jax import errors, images

_JSON_NAMES = {dict: "object", list: "list"}
# pathlib makes gs:/bucket of gs://bucket, so one slash is enough.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


class FileError(errors.UserError):
  """A path cannot be used, or the file there is damaged."""


class _LocalPath(type(epath.Path())):
  """A local path whose own name is never read as a pattern.

  etils hands the whole path to `glob`, so that a folder `run[1]` would stand
  for `run1`. Orbax looks for its files in this way.
  """

  def glob(self, pattern: str) -> Iterator["_LocalPath"]:
    """Yields the entries whose path below this folder matches a pattern."""
    for name in glob.glob(pattern, root_dir=os.fspath(self)):
      yield self / name


def as_path(path: epath.PathLike) -> epath.Path:
  """Returns a path as the package uses it: absolute, with `~` expanded.

  Args:
    path: Path of a file or folder, which need not exist.

  Raises:
    FileError: If the path is empty, or a URL.
  """
  text = os.fspath(path)
  if not text:
    raise FileError(
      "expected the path of a file or folder, found an empty one. Name a "
      "folder or a file, as in runs/digits."
    )
  # etils takes local folders such as /gs for buckets.
  found = _LocalPath(pathlib.Path(os.path.expanduser(text)).absolute())
  if _URL.match(text) or "://" in os.fspath(found):
    raise FileError(
      f"expected a local path, found {text!r}, which names a bucket or another "
      "URL. They are not supported yet: use a local folder, and copy it."
    )
  return found


def entries(folder: epath.PathLike) -> list[epath.Path]:
  """Returns what a folder holds, sorted by name; nothing if it is missing."""
  folder = as_path(folder)
  return sorted(folder.iterdir()) if folder.is_dir() else []


def all_files(folder: epath.PathLike) -> Iterator[epath.Path]:
  """Yields all files in a folder and its subfolders, sorted by path."""
  for path in entries(folder):
    if path.is_dir():
      yield from all_files(path)
    else:
      yield path


def write_atomic(
  path: epath.PathLike, content: str | bytes, sync: bool = True
) -> None:
  """Writes a file whole or not at all; missing folders are made.

  Args:
    path: Path of the file.
    content: New content; text is encoded as UTF-8.
    sync: Whether to wait until the disk has the content.
  """
  path = as_path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.partial")
  try:
    with partial.open("wb") as file:
      file.write(content.encode() if isinstance(content, str) else content)
      if sync:
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
  except BaseException:
    # A disk that is full needs the room that the partial file takes.
    partial.unlink(missing_ok=True)
    raise


def check_writable(folder: epath.PathLike) -> None:
  """Checks that files can be written into a folder, and leaves none there.

  Args:
    folder: Path of the folder. It may be missing; it is not made here.

  Raises:
    FileError: If nothing can be written there.
  """
  folder = as_path(folder)
  place = folder
  while not place.exists() and place != place.parent:
    place = place.parent
  try:
    tempfile.TemporaryFile(dir=place).close()
  except OSError as error:
    raise FileError(
      f"{folder}: expected a folder that can be written to; {place}: "
      f"{error.strerror}. Mend this, or name another place."
    ) from error


def write_json(
  path: epath.PathLike, content: Any, indent: int | None = None
) -> None:
  """Writes a JSON file whole or not at all.

  Args:
    path: Path of the file.
    content: What the file shall hold.
    indent: Spaces of each level; None writes one line.
  """
  write_atomic(path, json.dumps(content, indent=indent) + "\n")


def append_line(path: epath.PathLike, line: str) -> None:
  """Adds a line of text to a file; makes the file if there is none."""
  with as_path(path).open("a") as file:
    file.write(f"{line}\n")


def read_json(path: epath.PathLike, advice: str, kind: type) -> Any:
  """Reads a JSON file. It is data: nothing in it is run.

  Args:
    path: Path of a file that exists.
    advice: Sentence that ends the message: what the user can do.
    kind: Type that the file must hold: dict or list.

  Raises:
    FileError: If the file is not valid JSON, or of another kind.
  """
  path = as_path(path)
  try:
    found = json.loads(path.read_bytes())
  except (OSError, RecursionError, ValueError) as error:
    raise FileError(f"{path} is not valid JSON ({error}). {advice}") from error
  if not isinstance(found, kind):
    raise FileError(
      f"{path}: expected a JSON {_JSON_NAMES[kind]}, found a "
      f"{type(found).__name__}. {advice}"
    )
  return found


def read_record(
  path: epath.PathLike,
  expected: str,
  is_entry: Callable[[Any], bool],
  advice: str,
) -> list[dict[str, Any]]:
  """Reads the JSON list of what has happened in a run.

  Args:
    path: Path of the file. Without one, nothing has happened.
    expected: Description of an entry, for the error message.
    is_entry: Function that says whether JSON is an entry.
    advice: Sentence that ends the message: what the user can do.

  Raises:
    FileError: If the file is not a JSON list of such entries.
  """
  path = as_path(path)
  if not path.exists():
    return []
  entries = read_json(path, advice, list)
  if not all(map(is_entry, entries)):
    raise FileError(
      f"{path}: expected {expected}, found something else. {advice}"
    )
  return entries


def sha256(path: epath.PathLike) -> str:
  """Returns the SHA-256 of a file as hexadecimal digits."""
  with as_path(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_png(
  path: epath.PathLike, image: np.ndarray, sync: bool = True
) -> None:
  """Writes an image as a PNG file, whole or not at all.

  Args:
    path: Path of the file.
    image: Image, uint8 `[height, width, 1 or 3]`.
    sync: Whether to wait until the disk has the file.
  """
  write_atomic(path, images.to_png(image), sync)


def write_pngs(folder: epath.PathLike, images: np.ndarray) -> None:
  """Writes images as 00000.png, 00001.png, ... and makes the folder.

  A file is written whole or not at all. It may be lost in a power failure,
  because waiting for the disk at each of many files would take minutes.

  Args:
    folder: Path of the folder.
    images: Images, uint8 `[n, height, width, 1 or 3]`.
  """
  folder = as_path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for i, image in enumerate(images):
    write_png(folder / f"{i:05d}.png", image, sync=False)
