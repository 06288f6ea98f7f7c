"""Who holds a workdir: its note, its signs of life, the refusal of others."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator

from etils import epath

from hatebm_jax.run import workdir

_BOOT_ID = epath.Path("/proc/sys/kernel/random/boot_id")  # Only on Linux.
_NAMES = ("process", "host", "boot")


def note() -> dict[str, str | int]:
  """Returns what a process writes into the lock that it holds."""
  return {"process": os.getpid(), "host": socket.gethostname(), "boot": boot()}


def read(content: bytes) -> dict[str, str] | None:
  """Returns who took a lock; None if its note is missing or half written."""
  try:
    found = json.loads(content)
    return {name: str(found[name]) for name in _NAMES}
  except (KeyError, RecursionError, TypeError, ValueError):
    return None


def boot() -> str:
  """Returns a text that tells hosts of the same name apart."""
  if _BOOT_ID.exists():
    return _BOOT_ID.read_text().strip()
  return socket.gethostname()


def has_ended(found: dict[str, str]) -> bool:
  """Returns whether a process of this host, since its last start, is gone."""
  here = {name: str(value) for name, value in note().items()}
  if any(found[name] != here[name] for name in ("host", "boot")):
    return False
  try:
    os.kill(int(found["process"]), 0)
  except ProcessLookupError:
    return True
  except (OSError, OverflowError, ValueError):
    return False
  return False


def refusal(
  path: epath.Path, found: dict[str, str] | None
) -> workdir.WorkdirError:
  """Returns the error for a workdir that another process holds.

  Args:
    path: Path of the workdir.
    found: Note of that process, from `read`.
  """
  return workdir.WorkdirError(
    f"{path} is in use by {_name(found)}. Wait for its end, stop it, or use "
    "another --workdir."
  )


def say_waiting(
  path: epath.Path, found: dict[str, str] | None, seconds: float
) -> None:
  """Says that this process waits to see whether another one is alive.

  Args:
    path: Path of the workdir.
    found: Note of that process, from `read`.
    seconds: Seconds that this process waits.
  """
  print(
    f"{path} was last used by {_name(found)}. Waiting {seconds:g} s for a sign "
    "of life.",
    flush=True,
  )


def _name(found: dict[str, str] | None) -> str:
  """Returns a process for a message."""
  if not found:
    return "another process"
  return f"process {found['process']} on {found['host']}"


@contextlib.contextmanager
def signs_of_life(
  keep_touching: Callable[[threading.Event], None],
) -> Iterator[None]:
  """Shows in a thread that this process is alive, until the context ends.

  Args:
    keep_touching: Function that touches a lock again and again, until the event
      that it is given is set.
  """
  ended = threading.Event()
  thread = threading.Thread(
    target=keep_touching, args=(ended,), name="lock", daemon=True
  )
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
