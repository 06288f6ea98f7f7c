"""The lock of a workdir in a bucket: an object that only one process creates.

A bucket has no locks that end with their process. A process creates the object
on the condition that there is none, which the bucket decides in one step. Then
it writes the object anew every 10 seconds. Another process watches for that
before it takes the object over. It need not watch if the holder was a process
of the same host that has ended. Both writes have the condition that the object
is still the one that was read, so neither process overwrites what the other one
has written since. A holder that finds another one's object ends at once, so
that it writes nothing into the other one's run.

A condition may fail because this process itself has written: the answer to the
first request was lost, and the request was sent again. So the object is read
again each time, and its token says whose it is.
"""

import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from hatebm_jax.run import buckets, conditional, distributed, owner

FILE = "lock.json"


@contextlib.contextmanager
def hold(
  path: buckets.BucketPath, touch_seconds: float, watch_seconds: float
) -> Iterator[None]:
  """Holds a workdir for this process.

  Args:
    path: Path of the workdir.
    touch_seconds: Seconds between two signs of life.
    watch_seconds: Seconds without one after which a holder counts as dead.

  Raises:
    WorkdirError: If another process holds the workdir; the message names it.
    OSError: If the server of the bucket fails.
  """
  lock = _Lock(path, touch_seconds, watch_seconds)
  lock.take()
  try:
    with owner.signs_of_life(lock.keep_touching):
      yield
  finally:
    # A server that fails now must not hide how the run ended.
    with contextlib.suppress(OSError):
      lock.release()


class _Lock:
  """The object that says which process holds a workdir."""

  def __init__(
    self, path: buckets.BucketPath, touch_seconds: float, watch_seconds: float
  ):
    self._path, self._file = path, path / FILE
    self._touch_seconds, self._watch_seconds = touch_seconds, watch_seconds
    self._token = uuid.uuid4().hex
    self._num_touches = 0

  def take(self) -> None:
    """Takes the object for this process."""
    while not self._take_once():
      pass  # Another process has taken it over, or has removed it.

  def _take_once(self) -> bool:
    """Takes the object if there is none, or if its holder is dead."""
    try:
      with contextlib.suppress(FileExistsError):
        conditional.create(self._file, self._content())
        return True
      if not self._is_ours():
        version = self._version_of_the_dead()
        conditional.replace(self._file, self._content(), version)
      return True
    except (FileExistsError, FileNotFoundError):
      return False

  def _version_of_the_dead(self) -> str:
    """Waits to see whether the holder is alive; returns the object's version.

    Raises:
      FileNotFoundError: If the object is gone.
      WorkdirError: If the holder is alive.
    """
    version = conditional.version(self._file)
    found = owner.read(self._file.read_bytes())
    if found and owner.has_ended(found):
      return version
    owner.say_waiting(self._path, found, self._watch_seconds)
    deadline = time.monotonic() + self._watch_seconds
    while time.monotonic() < deadline:
      time.sleep(self._touch_seconds / 10)
      if conditional.version(self._file) != version:
        raise owner.refusal(self._path, owner.read(self._file.read_bytes()))
    return version

  def _content(self) -> bytes:
    self._num_touches += 1
    more = {"token": self._token, "touches": self._num_touches}
    return (json.dumps(owner.note() | more) + "\n").encode()

  def _is_ours(self) -> bool:
    """Returns whether the object is the one of this process.

    Raises:
      FileNotFoundError: If there is none.
    """
    with contextlib.suppress(RecursionError, TypeError, ValueError, KeyError):
      return json.loads(self._file.read_bytes())["token"] == self._token
    return False

  def keep_touching(self, ended: threading.Event) -> None:
    """Shows signs of life until an event; ends the process if another took it.

    Args:
      ended: Event that ends the signs of life.
    """
    while not ended.wait(self._touch_seconds):
      # A run must not end here because the server fails for a while.
      with contextlib.suppress(OSError):
        if not self.touch():
          self._leave()

  def touch(self) -> bool:
    """Writes the object anew, or again if it is gone.

    Returns:
      Whether this process holds the workdir. If not, nothing was written.

    Raises:
      OSError: If the server fails.
    """
    while True:
      # Another round finds out what has changed since the object was read.
      with contextlib.suppress(FileExistsError):
        try:
          version = conditional.version(self._file)
          if not self._is_ours():
            return False
        except FileNotFoundError:
          conditional.create(self._file, self._content())
        else:
          conditional.replace(self._file, self._content(), version)
        return True

  def _leave(self) -> None:
    print(
      f"error: {self._path} was taken over by another process, because this "
      f"one showed no sign of life for {self._watch_seconds:g} s. This process "
      "ends and writes nothing more.",
      file=sys.stderr,
      flush=True,
    )
    distributed.leave_now(1)

  def release(self) -> None:
    """Removes the object if it is still the one of this process."""
    # A touch keeps others off while the object is deleted, which has no
    # condition.
    if self.touch():
      self._file.unlink(missing_ok=True)
