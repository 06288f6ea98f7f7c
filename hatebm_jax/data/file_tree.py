"""Folders of files, local ones or in a bucket, by functions such as `os` has.

A folder in a bucket is listed once in a process, with all that lies below it.
Paths are text, as the user gave them.
"""

import os
import stat
from collections.abc import Iterator

from hatebm_jax.run import buckets, files

# What is known of buckets: the size of a file by its name, and the names of the
# folders in it, by the URL of a folder.
_Folder = tuple[list[str], dict[str, int]]
_folders: dict[str, _Folder] = {}
_listed: set[str] = set()


def expand(path: str) -> str:
  """Returns a path with `~` expanded, and a URL without a slash at its end."""
  return path.rstrip("/") if buckets.is_url(path) else os.path.expanduser(path)


def absolute(path: str) -> str:
  """Returns an absolute path; a URL is one already."""
  return path if buckets.is_url(path) else os.path.abspath(path)


def real(path: str | os.PathLike[str]) -> str:
  """Returns the path of a file or folder without symbolic links."""
  path = os.fspath(path)
  return path.rstrip("/") if buckets.is_url(path) else os.path.realpath(path)


def below(root: str, name: str) -> str:
  """Returns the path of what a name such as `a/b` stands for in a folder."""
  if not buckets.is_url(root):
    return os.path.normpath(os.path.join(root, name))
  name = os.path.normpath(name)
  return root if name == "." else f"{root}/{name}"


def is_dir(path: str) -> bool:
  """Returns whether there is a folder."""
  if buckets.is_url(path):
    return _folder(path) is not None
  return os.path.isdir(path)


def is_file(path: str) -> bool:
  """Returns whether there is a file."""
  if not buckets.is_url(path):
    return os.path.isfile(path)
  if _is_listed(path):
    folder, _, name = path.rpartition("/")
    return name in _folders.get(folder, ([], {}))[1]
  return files.as_path(path).is_file()


def is_regular(path: str) -> bool:
  """Returns whether a path is a file, and no pipe and no folder.

  Raises:
    OSError: If there is nothing.
  """
  return buckets.is_url(path) or stat.S_ISREG(os.stat(path).st_mode)


def size(path: str) -> int:
  """Returns the size of a file in bytes.

  Raises:
    OSError: If there is none.
  """
  if not buckets.is_url(path):
    return os.path.getsize(path)
  folder, _, name = path.rpartition("/")
  found = _folders.get(folder, ([], {}))[1]
  if _is_listed(path) and name not in found:
    raise FileNotFoundError(f"{path} is not there")
  return found[name] if name in found else files.as_path(path).stat().length


def read(path: str) -> bytes:
  """Returns the content of a file.

  Raises:
    OSError: If it cannot be read.
  """
  if buckets.is_url(path):
    return files.as_path(path).read_bytes()
  with open(path, "rb") as file:
    return file.read()


def walk(root: str, onerror=None) -> Iterator[tuple[str, list[str], list[str]]]:
  """Walks a tree as `os.walk` does, from the top and along symbolic links.

  Args:
    root: Path of the folder.
    onerror: Function of an `OSError`, for a local folder that cannot be read.

  Yields:
    The path of a folder, the names of its folders, which the caller may take
    away, and the names of its files.
  """
  if not buckets.is_url(root):
    yield from os.walk(root, onerror=onerror, followlinks=True)
    return
  found = _folder(root)
  if found is None:
    return
  folders, names = list(found[0]), list(found[1])
  yield root, folders, names
  for name in folders:
    yield from walk(f"{root}/{name}")


def _is_listed(path: str) -> bool:
  """Returns whether all that lies at or below a URL is known."""
  return any(path == x or path.startswith(f"{x}/") for x in _listed)


def _folder(url: str) -> _Folder | None:
  """Returns what a folder in a bucket holds; None if there is no folder."""
  if not _is_listed(url):
    _list(url)
  return _folders.get(url)


def _list(root: str) -> None:
  """Lists a folder in a bucket and all that lies below it."""
  for name, stored in buckets.objects(files.as_path(root)).items():
    *parents, file = name.split("/")
    folder = root
    _folders.setdefault(folder, ([], {}))
    for parent in parents:
      if parent not in _folders[folder][0]:
        _folders[folder][0].append(parent)
      folder = f"{folder}/{parent}"
      _folders.setdefault(folder, ([], {}))
    _folders[folder][1][file] = stored.size
  _listed.add(root)
