"""Starts the processes of a run that spans several hosts."""

import atexit
import faulthandler
import glob
import os
import subprocess
import sys
import time

import jax
from absl import logging

# Waits for one byte; says something if its pipe is closed without it.
_LISTENER = """
import sys
if not sys.stdin.buffer.read(1):
  print(sys.argv[1], file=sys.stderr, flush=True)
"""
_LAST_WORDS = (
  "error: this process of the run was killed, most likely because another one "
  "ended or its host was lost: the log of that one says why. When all have "
  "ended, start the same command again on every host: the run goes on from its "
  "newest checkpoint."
)
_FAREWELL_SECONDS = 10.0

_listener: subprocess.Popen | None = None  # of this process


def start(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins this process to the others, before any device is touched.

  Args:
    coordinator: `HOST:PORT` of process 0. Given, the other two must be too.
      None: on a TPU the environment is asked, elsewhere there is one process.
    num_processes: of the run.
    process_id: of this process, from 0.
  """
  if coordinator:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
    _start_on_tpu()
  if jax.distributed.is_initialized():
    _leave_last_words()


def _start_on_tpu() -> None:
  """Finds the other hosts of a TPU slice; there may be none (Colab)."""
  try:
    jax.distributed.initialize()
  except (RuntimeError, ValueError) as error:
    if jax.process_count() > 1:
      raise
    logging.info("One host, jax.distributed is not used: %s", error)


def _leave_last_words() -> None:
  """Lets a killed process say what happened, and what to do.

  When a process of a run is lost, JAX aborts the others (after at most 100
  seconds without a sign of life): no Python code runs any more, and what it
  prints is a stack of C++ functions. A small process that outlives this one
  says it in words.
  """
  faulthandler.disable()  # It would add pages of stacks and of module names.
  global _listener
  _listener = subprocess.Popen(
    [sys.executable, "-c", _LISTENER, _LAST_WORDS],
    stdin=subprocess.PIPE,
    start_new_session=True,  # Ctrl-C is not for it.
  )
  atexit.register(_end_well)


def _end_well() -> None:
  if _listener:
    _listener.communicate(b".")


def leave_alone(status: int) -> None:
  """Ends a process that fails while the others of its run may not.

  Waiting for them at the end, as JAX does, would take minutes, in which they
  wait for this one. Those that fail alike get time to say so first.
  """
  if jax.process_count() == 1:
    return
  time.sleep(_FAREWELL_SECONDS)
  leave_now(status)


def leave_now(status: int) -> None:
  """Ends this process without waiting for anything that it has started."""
  _end_well()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
