"""What a reader claims of memory."""

import contextlib
import tracemalloc


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
