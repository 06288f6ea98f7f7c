"""Files that grow by lines, such as metrics.jsonl.

A local file is appended to. In a bucket nothing can be appended, so the lines
of each start of a run are written into parts beside the file, such as
metrics.jsonl.00000003. The newest part is written anew with each line. Reading
joins the file and its parts, and `replace` makes one file of them.
"""

import contextlib
from collections.abc import Iterator

from etils import epath

from hatebm_jax.run import buckets, files

_LINES = 200  # in a part, so that a write stays small


class Lines:
  """Adds lines to a file."""

  def __init__(self, file: epath.Path):
    """Starts to add; nothing is written yet.

    Args:
      file: Path of the file, which need not exist.
    """
    self._file = file
    self._part, self._lines = None, []

  def append(self, line: str) -> None:
    """Adds a line of text, which is stored when this returns.

    Args:
      line: Text without an end of line.
    """
    if not buckets.is_bucket(self._file):
      files.append_line(self._file, line)
      return
    if self._part is None or len(self._lines) >= _LINES:
      self._part, self._lines = _next_part(self._file), []
    self._lines.append(f"{line}\n")
    files.write_atomic(self._part, "".join(self._lines))


def exists(file: epath.Path) -> bool:
  """Returns whether there are lines, in the file or in parts of it.

  Args:
    file: Path of the file.
  """
  return any(_parts(file)) or file.exists()


def read(file: epath.Path) -> list[bytes]:
  """Returns all lines of a file and of its parts; none without a file.

  Lines stand twice while a run joins the parts.

  Args:
    file: Path of the file.
  """
  while True:
    # A run that joins the parts, perhaps at this moment, removes them after it
    # has written the file. So the file is read last: then it has their lines.
    with contextlib.suppress(FileNotFoundError):
      parts = [part.read_bytes() for part in _parts(file)]
      first = file.read_bytes() if file.exists() else b""
      return b"".join((first, *parts)).splitlines()


def replace(file: epath.Path, text: str) -> None:
  """Writes the file anew and removes its parts.

  Args:
    file: Path of the file.
    text: All that the file shall hold.
  """
  files.write_atomic(file, text)
  for part in _parts(file):
    part.unlink(missing_ok=True)


def _parts(file: epath.Path) -> Iterator[epath.Path]:
  """Yields the parts of a file in the order of their numbers."""
  if not buckets.is_bucket(file):
    return
  for path in files.entries(file.parent):
    if path.stem == file.name and path.suffix[1:].isdecimal():
      yield path


def _next_part(file: epath.Path) -> epath.Path:
  """Returns the path of a part that is not there yet."""
  last = max((int(part.suffix[1:]) for part in _parts(file)), default=-1)
  return file.with_name(f"{file.name}.{last + 1:08d}")
