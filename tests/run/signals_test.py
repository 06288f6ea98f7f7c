"""Ctrl-C is never lost, whenever it comes."""

import concurrent.futures
import os
import signal
import threading
import time

import pytest
import tiny

from hatebm_jax import sample, train
from hatebm_jax.run import signals


@pytest.fixture(autouse=True)
def listen():
  """Lets SIGINT interrupt: a job in the background of a shell ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def interrupt_after(seconds):
  """Sends this process a SIGINT after some seconds, from a thread."""
  send = lambda: os.kill(os.getpid(), signal.SIGINT)
  threading.Timer(seconds, send).start()


@pytest.mark.slow
def test_ctrl_c_while_a_checkpoint_is_restored_is_never_lost(tmp_path):
  config = tiny.config()
  # A run may be trained in any thread of a program.
  with concurrent.futures.ThreadPoolExecutor() as pool:
    assert pool.submit(train.train, config, tmp_path).result() is None
  sample.restore(config, tmp_path)
  start = time.monotonic()
  sample.restore(config, tmp_path)
  duration = time.monotonic() - start
  for i in range(12):
    # The last ones come after the restore and interrupt the wait for them.
    with pytest.raises(KeyboardInterrupt):
      interrupt_after(duration * i / 10)
      sample.restore(config, tmp_path)
      time.sleep(5)


def test_it_acts_at_the_end_and_a_second_one_at_once():
  ended = []
  with pytest.raises(KeyboardInterrupt), signals.hold_back():
    signal.raise_signal(signal.SIGINT)
    ended.append("the block")
  assert ended == ["the block"]
  with pytest.raises(KeyboardInterrupt), signals.hold_back():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    ended.append("not reached")
  assert ended == ["the block"]
  with signals.hold_back():
    pass
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_sigterm_changes_nothing_and_ctrl_c_interrupts():
  before, received = signal.getsignal(signal.SIGTERM), []
  with (
    pytest.raises(KeyboardInterrupt),
    signals.catch(received, signal.SIGTERM, signal.SIGINT),
  ):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM, signal.SIGTERM]
    signal.raise_signal(signal.SIGINT)
  assert len(received) == 2
  assert signal.getsignal(signal.SIGTERM) is before


def test_a_closed_terminal_stops_a_run_but_under_nohup():
  before, received = signal.getsignal(signal.SIGHUP), []
  try:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with signals.catch(received, *signals.to_stop()):
      signal.raise_signal(signal.SIGHUP)
    assert received == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signals.to_stop() == (signal.SIGTERM,)
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_thread_may_use_them():
  def run():
    received = []
    with signals.hold_back(), signals.catch(received, signal.SIGTERM):
      found.append(1)
      found.extend(received)

  found = []
  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert found == [1]
