"""What a bucket can do: paths that start with `gs://` or `s3://`.

A bucket holds objects under names with slashes. An object is written whole or
not at all, and what is written can be read at once. But nothing can be appended
to an object, it cannot be renamed in one step, and there are no folders and no
locks. So the rest of `hatebm_jax.run` asks `is_bucket` where it needs one of
these, and does it in another way. `hatebm_jax.run.bucket_server` makes the
requests.
"""

import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from etils import epath

from hatebm_jax import errors
from hatebm_jax.run.bucket_server import (
  ANSWER_SECONDS,
  explained,
  filesystem,
  in_time,
  list_one,
  one_line,
)

# This object is written last into a checkpoint. Orbax gives it the name.
MARKER = "commit_success.txt"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://?([^/]*)/*(.*)", re.DOTALL)


class FileError(errors.UserError):
  """A path cannot be used, or the file there is damaged."""


class _Store(NamedTuple):
  """A kind of bucket.

  Attributes:
    module: Name of the module that reads it.
    extra: Name of the extra of this package that installs the module.
    log_in: Sentence that says how a user gets credentials.
  """

  module: str
  extra: str
  log_in: str


_STORES = {
  "gs": _Store(
    "gcsfs",
    "gcs",
    "Log in with `gcloud auth application-default login`, or name a key file "
    "in GOOGLE_APPLICATION_CREDENTIALS.",
  ),
  "s3": _Store(
    "s3fs",
    "s3",
    "Log in with `aws configure`, or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY.",
  ),
}


class BucketPath(type(epath.Path())):
  """A path in a bucket whose requests fail with an `OSError` or not at all.

  fsspec takes an object for missing if its server does not answer. A run that
  did so would begin anew.
  """

  def exists(self) -> bool:
    """Returns whether an object or a folder has this name."""
    return _kind(self) is not None

  def is_dir(self) -> bool:
    """Returns whether the names of objects begin with this path."""
    return _kind(self) == "directory"

  def is_file(self) -> bool:
    """Returns whether an object has this name."""
    return _kind(self) == "file"

  def iterdir(self) -> Iterator["BucketPath"]:
    """Yields what the folder holds; nothing if there is no such folder."""
    yield from (self / name for name in sorted(_children(self)))

  def mkdir(self, mode=None, parents=False, exist_ok=False) -> None:
    """Does nothing: a bucket has no folders to make."""

  def open(self, mode: str = "r", **options: Any) -> IO[Any]:
    """Opens the object, usually to read it."""
    with explained(self):
      return super().open(mode, **options)

  def unlink(self, missing_ok: bool = False) -> None:
    """Deletes the object."""
    with explained(self):
      try:
        filesystem(self).rm_file(os.fspath(self))
      except FileNotFoundError:
        if not missing_ok:
          raise

  def rmtree(self, missing_ok: bool = False) -> None:
    """Deletes all objects below this path, markers of whole checkpoints first.

    Args:
      missing_ok: Whether there may be none.
    """
    names = list(objects(self))
    if not names and not missing_ok:
      raise FileNotFoundError(f"{self} is not there")
    for name in sorted(names, key=lambda x: os.path.basename(x) != MARKER):
      (self / name).unlink(missing_ok=True)

  def read_bytes(self) -> bytes:
    """Returns the content of the object."""
    with explained(self):
      return filesystem(self).cat_file(os.fspath(self))

  def read_text(self, encoding: str | None = None) -> str:
    """Returns the content of the object as text."""
    return self.read_bytes().decode(encoding or "utf-8")

  def write_bytes(self, content: bytes) -> None:
    """Writes the object whole or not at all."""
    with explained(self):
      filesystem(self).pipe_file(os.fspath(self), content)

  def write_text(self, content: str, *_, **__) -> None:
    """Writes the object as UTF-8, whole or not at all."""
    self.write_bytes(content.encode())


def is_bucket(path: epath.PathLike) -> bool:
  """Returns whether a path lies in a bucket."""
  return isinstance(path, BucketPath)


def is_url(path: epath.PathLike) -> bool:
  """Returns whether a path is written as a URL, of a bucket or of another."""
  # pathlib makes gs:/bucket of gs://bucket, so one slash is enough.
  return bool(_URL.fullmatch(os.fspath(path)))


def as_path(url: str) -> BucketPath:
  """Returns the path of a URL whose server has answered.

  The server of each bucket is asked once in a process.

  Args:
    url: URL such as `gs://bucket/runs/digits`.

  Raises:
    FileError: If the scheme is unknown, a package is missing, or the bucket
      cannot be listed with the credentials that are there. It is raised within
      ten seconds.
  """
  scheme, bucket, key = _URL.fullmatch(url).groups()
  if scheme not in _STORES or not url.startswith(f"{scheme}://"):
    raise FileError(
      f"expected a local path, gs://BUCKET/PATH or s3://BUCKET/PATH, found "
      f"{url!r}, which names a bucket or another URL of an unknown kind. "
      "Correct it."
    )
  if not bucket:
    raise FileError(
      f"expected {scheme}://BUCKET/PATH, found {url!r} without a bucket. "
      "Name the bucket."
    )
  store = _STORES[scheme]
  if importlib.util.find_spec(store.module) is None:
    raise FileError(
      f"{url}: {scheme}:// needs the package {store.module}, which is not "
      f"installed. Install it: pip install -e '.[{store.extra}]'."
    )
  _check_answers(scheme, bucket, key)
  return BucketPath(url)


@functools.cache
def _check_answers(scheme: str, bucket: str, key: str = "") -> None:
  """Raises a FileError unless the bucket can be listed."""
  url = f"{scheme}://{bucket}"
  # The time is the server's, and not that of reading the package from disk.
  importlib.import_module(_STORES[scheme].module)
  if scheme == "s3":
    with explained(url):
      filesystem(url).connect()  # This reads the description of all requests.
  status, result = in_time(lambda: list_one(scheme, bucket, key))
  if status == "done":
    return
  if status == "late":
    found = f"its server did not answer within {ANSWER_SECONDS:g} s"
  else:
    found = one_line(result)
  raise FileError(
    f"{url}: expected a bucket that can be listed; {found}. Check the name, "
    f"the network and the permissions. {_STORES[scheme].log_in}"
  ) from result


def _kind(path: BucketPath) -> str | None:
  """Returns `file` or `directory`; None if there is neither."""
  try:
    with explained(path):
      return filesystem(path).info(os.fspath(path))["type"]
  except FileNotFoundError:
    return None


def _children(path: BucketPath) -> set[str]:
  """Returns the names in a folder."""
  try:
    with explained(path):
      found = filesystem(path).ls(os.fspath(path), detail=False)
  except FileNotFoundError:
    return set()
  names = {os.path.basename(name.rstrip("/")) for name in found}
  # Other tools mark a folder by an empty object with the folder's name.
  return names - {"", path.name} if path.name in names else names - {""}


class Stored(NamedTuple):
  """What a bucket says about an object, without reading it.

  Attributes:
    size: Size in bytes.
    digest: Checksum of the content that the bucket has computed.
  """

  size: int
  digest: str


def objects(folder: BucketPath) -> dict[str, Stored]:
  """Returns all objects below a folder, from lists of names alone.

  Args:
    folder: Path of the folder.

  Returns:
    The objects by their names below the folder, in the order of the names.
  """
  with explained(folder):
    found = filesystem(folder).find(os.fspath(folder), detail=True)
  prefix = os.fspath(folder).partition("://")[2].rstrip("/") + "/"
  return {
    name.removeprefix(prefix): Stored(
      int(entry["size"]), entry.get("crc32c") or entry.get("ETag", "")
    )
    for name, entry in sorted(found.items())
    if name.startswith(prefix) and not name.endswith("/")
  }


def upload(file: str, path: BucketPath) -> None:
  """Writes an object with the content of a local file.

  Args:
    file: Path of the local file.
    path: Path of the object.
  """
  with explained(path):
    filesystem(path).put_file(file, os.fspath(path))


def download(path: BucketPath, file: str) -> None:
  """Writes a local file with the content of an object.

  Args:
    path: Path of the object.
    file: Path of the local file. Its folder is there.
  """
  with explained(path):
    filesystem(path).get_file(os.fspath(path), file)


def move(folder: BucketPath, to: BucketPath) -> None:
  """Copies all objects below a folder to another one, then deletes the first.

  Args:
    folder: Path of the folder.
    to: Path of the new folder.
  """
  with explained(folder):
    store = filesystem(folder)
    for name in objects(folder):
      store.cp_file(os.fspath(folder / name), os.fspath(to / name))
  folder.rmtree(missing_ok=True)
