"""Checks how much memory a reader takes."""

import contextlib
import pathlib
import tracemalloc

_PROC = pathlib.Path("/proc/self")


@contextlib.contextmanager
def claims_less_than(size):
  """Checks that Python and NumPy hold less than `size` bytes at any time."""
  tracemalloc.start()
  try:
    yield
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < size, f"{peak / 1e6:.0f} MB"


@contextlib.contextmanager
def fills_less_than(size):
  """Checks that the process's memory rises by less than `size` bytes.

  This also sees readers in C++. It needs Linux and checks nothing elsewhere.
  It does not use tracemalloc, which sometimes ends the process when threads of
  C++ release Python's objects.
  """
  if not (_PROC / "clear_refs").exists():
    yield
    return
  # This resets the peak to the memory that is in use now.
  (_PROC / "clear_refs").write_text("5")
  before = _status("VmRSS")
  yield
  rise = _status("VmHWM") - before
  assert rise < size, f"{rise / 1e6:.0f} MB"


def _status(name):
  lines = (_PROC / "status").read_text().splitlines()
  return next(1024 * int(x.split()[1]) for x in lines if x.startswith(name))
