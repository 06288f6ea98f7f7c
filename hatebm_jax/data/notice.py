"""Tells a user on stderr what was decided about the images."""

import functools
import sys


@functools.cache
def say(message: str) -> None:
  """Prints a message on stderr, once in a process.

  A source is opened several times in a run: for training, for evaluation, and
  to look at the size of its images.

  Args:
    message: Whole sentences on one line.
  """
  print(message, file=sys.stderr)
