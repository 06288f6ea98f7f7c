"""What a reader claims of memory."""

import contextlib
import pathlib
import tracemalloc

_PROC = pathlib.Path("/proc/self")


@contextlib.contextmanager
def claims_less_than(size):
  """Checks that Python and NumPy claim less than so many bytes at once."""
  tracemalloc.start()
  try:
    yield
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < size, f"{peak / 1e6:.0f} MB"


@contextlib.contextmanager
def fills_less_than(size):
  """Checks that the process fills less than so many bytes more at once.

  Readers in C++ are seen too; Linux alone tells. Where threads of C++ let go of
  Python's objects, tracemalloc ends the process now and then.
  """
  if not (_PROC / "clear_refs").exists():
    yield
    return
  (_PROC / "clear_refs").write_text("5")  # The peak is now.
  before = _status("VmRSS")
  yield
  rise = _status("VmHWM") - before
  assert rise < size, f"{rise / 1e6:.0f} MB"


def _status(name):
  lines = (_PROC / "status").read_text().splitlines()
  return next(1024 * int(x.split()[1]) for x in lines if x.startswith(name))
