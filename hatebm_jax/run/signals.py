"""Signals that ask a run to stop, and when they act."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def catch(
  received: list[signal.Signals], *numbers: signal.Signals
) -> Iterator[None]:
  """Notes signals in a list instead of what they did before.

  Schedulers may send SIGTERM more than once, so only a SIGINT that is not the
  first signal interrupts. Python delivers signals to its main thread. In
  another thread, as in an agent of a sweep, the list stays empty, and signals
  do what they did before.

  Args:
    received: List that takes the signals.
    *numbers: Signals that are noted.

  Raises:
    KeyboardInterrupt: At a SIGINT after another signal.
  """
  if not _in_main_thread():
    yield
    return

  def handler(number, _):
    if received and number == signal.SIGINT:
      raise KeyboardInterrupt
    received.append(signal.Signals(number))
    # A print that the signal has interrupted would refuse this one.
    with contextlib.suppress(RuntimeError):
      print("Stopping after this training step.", flush=True)

  previous = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield
  finally:
    for number, old in previous.items():
      signal.signal(number, old)


def to_stop() -> tuple[signal.Signals, ...]:
  """Returns the signals by which schedulers and terminals stop a run.

  SIGHUP comes when a terminal is closed. Under `nohup` a process ignores it,
  and goes on doing so.
  """
  if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    return (signal.SIGTERM,)
  return signal.SIGTERM, signal.SIGHUP


def end_at_sigterm(end: Callable[[int], None]) -> None:
  """Ends this process with status 143 when SIGTERM comes.

  Without a handler the first process of a container would ignore SIGTERM, and
  so does a process that has joined others: JAX handles SIGTERM there.

  Args:
    end: Function of the exit status that ends the process.
  """
  if _in_main_thread():
    signal.signal(signal.SIGTERM, lambda number, _: end(128 + number))


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
