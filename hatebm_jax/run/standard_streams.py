"""Standard output and standard error that outlive their readers.

A run prints for days. Its terminal may be closed, the program behind a pipe may
end, and the disk of a log may be full. Then lines are lost, but not the run.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

# The reader of a pipe or a terminal is gone, and does not come back.
_GONE = (errno.EPIPE, errno.EIO)


class Lasting:
  """A text stream that loses what it cannot write."""

  def __init__(self, stream: TextIO):
    """Wraps a stream of a file descriptor; other attributes are its own."""
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Writes text, or loses it."""
    self._do(lambda: self._stream.write(text))
    return len(text)

  def flush(self) -> None:
    """Writes what is buffered, or keeps it for the next time."""
    self._do(self._stream.flush)

  def _do(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except OSError as error:
      if error.errno in _GONE:
        # Python flushes once more at the end, and libraries write here too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_lasting() -> None:
  """Makes the standard streams of this process outlive their readers.

  Characters that standard output cannot print, as in the names of files, are
  escaped. Standard error escapes them anyway.
  """
  sys.stdout.reconfigure(errors="backslashreplace")
  sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)
