"""One workdir, one run: a lock that a dead process does not keep.

The lock is a file that its process keeps locked with flock, which the kernel
releases when the process ends, however it ends. Where hosts share a directory
but not its locks, the process also touches the file again and again: a process
on another host watches for that before it takes the file over.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

from hatebm_jax.run import workdir

FILE = "lock.json"
_TOUCH_SECONDS = 10.0
# Shared directories show a touch to other hosts up to a minute later.
_WATCH_SECONDS = 75.0
_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")  # Linux


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
  """Holds a workdir for this process; makes the directory if there is none.

  A directory that holds nothing else in the end is removed again.

  Args:
    path: the workdir.

  Raises:
    WorkdirError: if another process holds it; says which.
  """
  path.mkdir(parents=True, exist_ok=True)
  file = path / FILE
  opened = _take(file)
  ended = threading.Event()
  toucher = threading.Thread(
    target=_keep_touching, args=(opened, ended), name="lock", daemon=True
  )
  toucher.start()
  try:
    yield
  finally:
    ended.set()
    toucher.join()
    file.unlink(missing_ok=True)
    os.close(opened)
    with contextlib.suppress(OSError):  # It is not empty: the usual case.
      path.rmdir()


def _take(file: pathlib.Path) -> int:
  """Takes the file over for this process; returns its descriptor."""
  while True:
    with contextlib.ExitStack() as stack:
      opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
      stack.callback(os.close, opened)
      has_locks = _flock(file, opened)
      if not _is_at(file, opened):
        continue  # Its holder has removed it since.
      owner = _owner(opened)
      if owner and not (has_locks and owner["boot"] == _boot()):
        _watch(file, opened, owner)
      _write_owner(opened)
      stack.pop_all()
      return opened


def _flock(file: pathlib.Path, opened: int) -> bool:
  """Locks the file; says whether its directory has locks at all.

  Raises:
    WorkdirError: if another process has locked it.
  """
  try:
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise _refusal(file, _owner(opened)) from error
  except OSError:
    return False
  return True


def _is_at(file: pathlib.Path, opened: int) -> bool:
  """Says whether a descriptor is of the file that is there now."""
  try:
    return os.path.samestat(file.stat(), os.fstat(opened))
  except FileNotFoundError:
    return False


def _watch(file: pathlib.Path, opened: int, owner: dict) -> None:
  """Waits to see whether the file's owner, on another host, is dead.

  Raises:
    WorkdirError: if it touches the file.
  """
  print(
    f"{file.parent} was last used by process {owner['process']} on "
    f"{owner['host']}: looking for {_WATCH_SECONDS:g} s whether it is alive.",
    flush=True,
  )
  touched = os.fstat(opened).st_mtime_ns
  deadline = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < deadline:
    time.sleep(_TOUCH_SECONDS / 10)
    # Opened anew: that is when a network's file system asks its server.
    with file.open("rb") as again:
      if os.fstat(again.fileno()).st_mtime_ns != touched:
        raise _refusal(file, owner)


def _refusal(file: pathlib.Path, owner: dict | None) -> workdir.WorkdirError:
  who = "another process"
  if owner:
    who = f"process {owner['process']} on {owner['host']}"
  return workdir.WorkdirError(
    f"{file.parent} is in use by {who}. Wait for its end, stop it, or use "
    "another --workdir."
  )


def _owner(opened: int) -> dict | None:
  """Reads who took the file; None: nobody, or its note is half written."""
  try:
    owner = json.loads(os.pread(opened, 10_000, 0))
    return {name: str(owner[name]) for name in ("process", "host", "boot")}
  except (KeyError, RecursionError, TypeError, ValueError):
    return None


def _write_owner(opened: int) -> None:
  owner = {"process": os.getpid(), "host": socket.gethostname()}
  text = json.dumps({**owner, "boot": _boot()}) + "\n"
  os.ftruncate(opened, 0)
  os.pwrite(opened, text.encode(), 0)


def _boot() -> str:
  """Tells hosts apart whose names are alike."""
  if _BOOT_ID.exists():
    return _BOOT_ID.read_text().strip()
  return socket.gethostname()


def _keep_touching(opened: int, ended: threading.Event) -> None:
  while not ended.wait(_TOUCH_SECONDS):
    with contextlib.suppress(OSError):  # A full disk must not end a run here.
      os.utime(opened)
