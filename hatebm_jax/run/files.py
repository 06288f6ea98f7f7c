"""The one way to the files that a run reads and writes.

Every path of a run is an `etils.epath.Path`: a local one, or one in a bucket
(`hatebm_jax.run.buckets`). Files are written whole or not at all, except for
local files that grow by lines.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from etils import epath

from hatebm_jax import images
from hatebm_jax.run import buckets
from hatebm_jax.run.buckets import FileError

_JSON_NAMES = {dict: "object", list: "list"}


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
    path: Path of a file or folder, which need not exist: a local one, or a URL
      `gs://BUCKET/PATH` or `s3://BUCKET/PATH`.

  Raises:
    FileError: If the path is empty, or a URL that cannot be used. The server
      of a bucket has ten seconds to answer.
  """
  if buckets.is_bucket(path):
    return path
  text = os.fspath(path)
  if not text:
    raise FileError(
      "expected the path of a file or folder, found an empty one. Name a "
      "folder or a file, as in runs/digits."
    )
  if buckets.is_url(text):
    return buckets.as_path(text)
  found = _LocalPath(pathlib.Path(os.path.expanduser(text)).absolute())
  if "://" in os.fspath(found):
    raise FileError(
      f"expected a path, found {text!r}, which etils takes for a bucket or "
      "another URL. Use a local folder of another name, or write "
      "gs://BUCKET/PATH for a bucket."
    )
  return found


def entries(folder: epath.PathLike) -> list[epath.Path]:
  """Returns what a folder holds, sorted by name; nothing if it is missing."""
  folder = as_path(folder)
  return sorted(folder.iterdir()) if folder.is_dir() else []


def all_files(folder: epath.PathLike) -> Iterator[epath.Path]:
  """Yields all files in a folder and its subfolders, sorted by path."""
  folder = as_path(folder)
  if buckets.is_bucket(folder):
    yield from (folder / name for name in buckets.objects(folder))
    return
  for path in entries(folder):
    if path.is_dir():
      yield from all_files(path)
    else:
      yield path


def upload_all(folder: epath.PathLike, path: epath.Path) -> None:
  """Writes all files of a local folder and its subfolders into a bucket.

  Args:
    folder: Path of the local folder.
    path: Path in the bucket that stands for the folder.
  """
  for file in all_files(folder):
    name = os.path.relpath(file, folder)
    buckets.upload(os.fspath(file), path / name)


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
  content = content.encode() if isinstance(content, str) else content
  if buckets.is_bucket(path):
    path.write_bytes(content)
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.partial")
  try:
    with partial.open("wb") as file:
      file.write(content)
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
  if buckets.is_bucket(folder):
    _check_bucket_writable(folder)
    return
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


def _check_bucket_writable(folder: epath.Path) -> None:
  """Raises a FileError if no object can be written below a path."""
  probe = folder / f".writable-{uuid.uuid4().hex}"
  try:
    probe.write_bytes(b"")
    probe.unlink()
  except OSError as error:
    raise FileError(
      f"{folder}: expected a bucket that can be written to; {error}. Ask for "
      "the permission to write and delete objects, or name another place."
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


@contextlib.contextmanager
def local_copy(path: epath.PathLike) -> Iterator[str]:
  """Yields the path of a local file with a file's content.

  A local file is used itself. An object of a bucket is copied, and the copy
  deleted at the end.

  Args:
    path: Path of the file.
  """
  if not buckets.is_url(path):
    yield os.fspath(path)
    return
  path = as_path(path)
  with tempfile.TemporaryDirectory(prefix="hatebm_") as folder:
    file = os.path.join(folder, path.name)
    buckets.download(path, file)
    yield file


def open_binary(path: epath.PathLike) -> IO[bytes]:
  """Opens a file to read bytes; it can be searched like a local one.

  Args:
    path: Path of the file, a local one as it is given, or a URL.
  """
  if buckets.is_url(path):
    return as_path(path).open("rb")
  return open(os.path.expanduser(path), "rb")


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
