"""Signals that ask a run to stop, and when they act."""

import contextlib
import signal
import threading
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


@contextlib.contextmanager
def hold_back() -> Iterator[None]:
  """Lets Ctrl-C (SIGINT) act at the end of a block; a second one acts at once.

  Orbax restores a checkpoint in an event loop, in which an interrupt is lost
  now and then, or turns into another error.

  Raises:
    KeyboardInterrupt: At the end of the block, if the signal has come.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Only the main thread receives signals and may handle them.
    return
  received = []

  def handler(number, _):
    if received:
      raise KeyboardInterrupt
    received.append(number)

  previous = signal.signal(signal.SIGINT, handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, previous)
  if received:
    raise KeyboardInterrupt
