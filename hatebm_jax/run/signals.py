"""Signals that ask a run to stop, and when they act."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def catch() -> Iterator[list[signal.Signals]]:
  """Yields a list that SIGTERM and SIGINT fill; a second signal interrupts.

  Python delivers signals to its main thread. In another thread, as in an agent
  of a sweep, the list stays empty, and signals do what they did before.

  Raises:
    KeyboardInterrupt: At the second signal.
  """
  if not _in_main_thread():
    yield []
    return
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
  if not _in_main_thread():
    yield
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


def _in_main_thread() -> bool:
  """Returns whether this thread receives signals and may handle them."""
  return threading.current_thread() is threading.main_thread()
