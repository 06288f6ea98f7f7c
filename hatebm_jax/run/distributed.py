"""Starts and ends the processes of a run that spans several hosts.

When one process of a run is lost, JAX aborts the others, at most 100 seconds
later, and prints a stack of C++ functions that names the failed coordination
service. Start the same command again on every host: the run goes on from its
newest checkpoint.
"""

import os
import re
import sys
import time

import jax
from absl import logging

_FAREWELL_SECONDS = 10.0


def start(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins this process to the others, before any device is touched.

  Args:
    coordinator: Address `HOST:PORT` of process 0; the other two arguments must
      then be given too. None asks the environment on a TPU; elsewhere there is
      one process.
    num_processes: Number of processes of the run.
    process_id: Number of this process, from 0.
  """
  if coordinator:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif _has_tpu():
    _start_on_tpu()


def _has_tpu() -> bool:
  """Returns whether this host has the device files of a TPU."""
  patterns = {"/dev": r"accel.*", "/dev/vfio": r"\d.*"}
  return any(
    re.fullmatch(pattern, name)
    for folder, pattern in patterns.items()
    if os.path.isdir(folder)
    for name in os.listdir(folder)
  )


def _start_on_tpu() -> None:
  """Finds the other hosts of a TPU slice; there may be none, as on Colab."""
  try:
    jax.distributed.initialize()
  except (RuntimeError, ValueError) as error:
    if jax.process_count() > 1:
      raise
    logging.info("One host, jax.distributed is not used: %s", error)


def leave_alone(status: int) -> None:
  """Ends a process that fails, while the others of its run may go on.

  At the end JAX waits for all processes. That would take minutes here, because
  the others wait for this one. If all fail in the same way, each gets the time
  to say so first.

  Args:
    status: Exit status of the process.
  """
  if jax.process_count() == 1:
    return
  time.sleep(_FAREWELL_SECONDS)
  leave_now(status)


def leave_now(status: int) -> None:
  """Ends this process without waiting for anything that it has started.

  Args:
    status: Exit status of the process.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
