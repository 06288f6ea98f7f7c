"""Signals that ask a run to stop."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def catch() -> Iterator[list[signal.Signals]]:
  """Yields a list that SIGTERM and SIGINT fill; a second signal interrupts.

  Raises:
    KeyboardInterrupt: At the second signal.
  """
  received: list[signal.Signals] = []

  def handler(number, _):
    if received:
      raise KeyboardInterrupt
    received.append(signal.Signals(number))
    print("Stopping after this training step.", flush=True)

  numbers = (signal.SIGTERM, signal.SIGINT)
  previous = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield received
  finally:
    for number, old in previous.items():
      signal.signal(number, old)
