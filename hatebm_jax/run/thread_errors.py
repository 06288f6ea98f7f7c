"""Errors in the threads that write checkpoints, which are no news to a user.

A write that fails does so in dozens of threads. One error is raised for all.
"""

import logging
import sys
from typing import Any

import absl.logging


def hide() -> None:
  """Keeps the errors in threads of orbax and TensorStore from the terminal."""
  absl.logging.get_absl_logger().addFilter(lambda x: "orbax" not in x.pathname)
  logging.getLogger("asyncio").addFilter(_is_news)
  sys.unraisablehook = _say


def _is_news(record: logging.LogRecord) -> bool:
  """Returns whether a record of asyncio tells something new.

  Orbax waits for the first array that fails. The tasks of other arrays that
  fail then end without anybody who asks for their errors.
  """
  return "exception was never retrieved" not in record.getMessage()


def _say(found: Any) -> None:
  """Prints an error that nobody can catch, unless it is one of many.

  Orbax closes its event loop when the first array fails. TensorStore reports
  the others to the closed loop.

  Args:
    found: What Python tells `sys.unraisablehook`.
  """
  if str(found.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(found)
