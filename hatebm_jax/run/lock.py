"""The lock of a workdir: one run at a time.

The lock is a file on which its process holds a flock. The kernel releases it
when the process ends, however it ends. Some file systems share a directory
between hosts, but not its locks. So the process also touches the file every 10
seconds, and a process on another host watches for that before it takes the file
over. The lock of a killed run is ignored: at once on the same host, after 75
seconds on another. In a bucket it is an object (`hatebm_jax.run.bucket_lock`).
"""

import contextlib
import fcntl
import functools
import json
import os
import threading
import time
from collections.abc import Iterator

from etils import epath

from hatebm_jax.run import bucket_lock, buckets, files, owner

FILE = bucket_lock.FILE
_TOUCH_SECONDS = 10.0
# A shared directory may show a touch to other hosts a minute later.
_WATCH_SECONDS = 75.0


@contextlib.contextmanager
def hold(path: epath.Path) -> Iterator[None]:
  """Holds a workdir for this process; makes the directory if there is none.

  A directory that holds nothing else in the end is removed again.

  Args:
    path: Path of the workdir.

  Raises:
    WorkdirError: If another process holds the workdir; the message names it.
  """
  path = files.as_path(path)
  if buckets.is_bucket(path):
    with bucket_lock.hold(path, _TOUCH_SECONDS, _WATCH_SECONDS):
      yield
    return
  path.mkdir(parents=True, exist_ok=True)
  file = path / FILE
  opened = _take(file)
  try:
    with owner.signs_of_life(functools.partial(_keep_touching, opened)):
      yield
  finally:
    file.unlink(missing_ok=True)
    os.close(opened)
    # The directory is usually not empty. (The rmdir of etils could delete what
    # another process writes meanwhile.)
    with contextlib.suppress(OSError):
      os.rmdir(path)


def _take(file: epath.Path) -> int:
  """Takes the lock's file for this process; returns its descriptor."""
  while True:
    with contextlib.ExitStack() as stack:
      opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
      stack.callback(os.close, opened)
      has_locks = _flock(file, opened)
      if not _is_at(file, opened):
        continue  # Its holder has removed the file since.
      found = _owner(opened)
      if found and not (has_locks and found["boot"] == owner.boot()):
        _watch(file, opened, found)
      _write_owner(opened)
      stack.pop_all()
      return opened


def _flock(file: epath.Path, opened: int) -> bool:
  """Locks the file; returns whether its file system has locks at all.

  Raises:
    WorkdirError: If another process has locked the file.
  """
  try:
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise owner.refusal(file.parent, _owner(opened)) from error
  except OSError:
    return False
  return True


def _is_at(file: epath.Path, opened: int) -> bool:
  """Returns whether a descriptor belongs to the file that is there now."""
  try:
    return os.path.samestat(os.stat(file), os.fstat(opened))
  except FileNotFoundError:
    return False


def _watch(file: epath.Path, opened: int, found: dict) -> None:
  """Waits to see whether the file's owner, on another host, is alive.

  Raises:
    WorkdirError: If the owner touches the file.
  """
  owner.say_waiting(file.parent, found, _WATCH_SECONDS)
  touched = os.fstat(opened).st_mtime_ns
  deadline = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < deadline:
    time.sleep(_TOUCH_SECONDS / 10)
    # A network file system asks its server when a file is opened.
    with file.open("rb") as again:
      if os.fstat(again.fileno()).st_mtime_ns != touched:
        raise owner.refusal(file.parent, found)


def _owner(opened: int) -> dict | None:
  """Returns who took the file; None if its note is missing or half written."""
  return owner.read(os.pread(opened, 10_000, 0))


def _write_owner(opened: int) -> None:
  text = json.dumps(owner.note()) + "\n"
  os.ftruncate(opened, 0)
  os.pwrite(opened, text.encode(), 0)


def _keep_touching(opened: int, ended: threading.Event) -> None:
  while not ended.wait(_TOUCH_SECONDS):
    # A run must not end here, for example because the disk is full.
    with contextlib.suppress(OSError):
      os.utime(opened)
