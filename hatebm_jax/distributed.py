"""Starts the processes of a run that spans several hosts."""

import glob

import jax
from absl import logging


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


def _start_on_tpu() -> None:
  """Finds the other hosts of a TPU slice; there may be none (Colab)."""
  try:
    jax.distributed.initialize()
  except (RuntimeError, ValueError) as error:
    if jax.process_count() > 1:
      raise
    logging.info("One host, jax.distributed is not used: %s", error)
