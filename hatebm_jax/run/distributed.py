"""Starts and ends the processes of a run that spans several hosts.

When one process of a run is lost, JAX aborts the others, at most 100 seconds
later, and prints a stack of C++ functions that names the failed coordination
service. Start the same command again on every host: the run goes on from its
newest checkpoint.
"""

import contextlib
import os
import re
import socket
import sys
import time

import jax
from absl import logging

from hatebm_jax import errors

_FAREWELL_SECONDS = 10.0
_START_SECONDS = 300  # The time that JAX waits for the other processes.
# The variables in which launchers say how many processes they have started.
# Slurm sets its variable in steps alone. A batch script or a shell of salloc
# has none, or 1, even if the job may start several tasks.
_LAUNCHERS = {
  "OMPI_COMM_WORLD_SIZE": "Open MPI",
  "SLURM_STEP_NUM_TASKS": "Slurm",
}


class ProcessError(errors.UserError):
  """The processes of a run do not find each other, or a flag is wrong."""


def start(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins this process to the others, before any device is touched.

  Args:
    coordinator: Address `HOST:PORT` of process 0; the other two arguments must
      then be given too. None asks the environment: Open MPI, Slurm and TPUs are
      recognised, and elsewhere there is one process.
    num_processes: Number of processes of the run. 1 without the other arguments
      leaves this process alone, whatever the environment says.
    process_id: Number of this process, from 0.

  Raises:
    ProcessError: If the arguments do not fit together, or the processes do not
      find each other.
  """
  if num_processes == 1 and not coordinator and process_id is None:
    return
  _check(coordinator, num_processes, process_id)
  if coordinator:
    place = f"--coordinator={coordinator}"
    _join(coordinator, num_processes, process_id, place)
  elif variable := _find_launcher():
    _join_launched(variable)
  elif _has_tpu():
    _start_on_tpu()


def _check(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Raises a ProcessError if the arguments do not fit together."""
  given = {
    "--coordinator": coordinator,
    "--num_processes": num_processes,
    "--process_id": process_id,
  }
  missing = [name for name, value in given.items() if value in (None, "")]
  if len(missing) == len(given):
    return
  if missing:
    raise ProcessError(
      f"expected {', '.join(given)} together, or none of them, or "
      f"--num_processes=1 alone; {', '.join(missing)} is missing. Add it, or "
      "leave the others out."
    )
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise ProcessError(
      f"--coordinator={coordinator}: expected HOST:PORT of process 0, such as "
      "10.0.0.1:1234, with a port from 1 to 65535."
    )
  if num_processes < 1:
    raise ProcessError(
      f"--num_processes={num_processes}: expected the number of processes, 1 "
      "or more."
    )
  if not 0 <= process_id < num_processes:
    raise ProcessError(
      f"--process_id={process_id}: expected a number from 0 to "
      f"{num_processes - 1}, because --num_processes={num_processes}. Give "
      "each process a number of its own."
    )


def _find_launcher() -> str | None:
  """Returns the variable of a launcher, or None if this process is alone."""
  for variable in _LAUNCHERS:
    if variable in os.environ:
      return variable if os.environ[variable] != "1" else None
  return None


def _join_launched(variable: str) -> None:
  """Joins the processes that a launcher has started beside this one.

  Args:
    variable: Variable in which the launcher says the number of processes.

  Raises:
    ProcessError: If JAX does not find process 0, or the processes do not find
      each other.
  """
  # jax.distributed.initialize() finds the same, but it does not say the
  # address, and ends in a crash where `_join` has an error of one line.
  from jax._src import clusters

  launcher = _LAUNCHERS[variable]
  try:
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
      *(None, None, None, None, None), _START_SECONDS
    )
  except (KeyError, RuntimeError, ValueError) as error:
    raise _not_found(launcher, first_line(error)) from error
  coordinator, num_processes, process_id, _ = found
  if coordinator is None:
    raise _not_found(launcher, "it does not know this version")
  if str(num_processes) != os.environ[variable]:
    # Open MPI 5 in a job of Slurm looks like the step that starts its daemons.
    raise _not_found(
      launcher,
      f"it finds {num_processes} processes, but {variable} is "
      f"{os.environ[variable]}",
    )
  print(
    f"Process {process_id} of {num_processes}, found through {launcher}.",
    flush=True,
  )
  place = f"{coordinator}, the address found through {launcher}"
  _join(coordinator, num_processes, process_id, place)


def _not_found(launcher: str, reason: str) -> ProcessError:
  """Returns the error about a launcher that JAX cannot read."""
  return ProcessError(
    f"{launcher} has started several processes, but JAX cannot find process 0 "
    f"({reason}). Give --coordinator, --num_processes and --process_id, or "
    "--num_processes=1 alone if each process is a run of its own."
  )


def _join(
  coordinator: str, num_processes: int, process_id: int, place: str
) -> None:
  """Joins the other processes.

  Args:
    coordinator: Address `HOST:PORT` of process 0.
    num_processes: Number of processes of the run.
    process_id: Number of this process, from 0.
    place: What an error calls the address.

  Raises:
    ProcessError: If the processes do not find each other.
  """
  # JAX ends the process by an abort if it cannot listen or connect.
  host, _, port = coordinator.rpartition(":")
  if process_id == 0:
    _check_port(place, int(port))
    print(
      f"Waiting at most {_START_SECONDS} s for {num_processes - 1} other "
      f"process(es) to join at {coordinator}.",
      flush=True,
    )
  else:
    _wait_for(place, host.strip("[]"), int(port))
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=_START_SECONDS,
    )
  except (RuntimeError, ValueError) as error:
    raise ProcessError(
      f"process {process_id} of {num_processes} could not join the others at "
      f"{place} ({first_line(error)}). Check that every process has the same "
      "number of processes and another number of its own."
    ) from error


def _check_port(place: str, port: int) -> None:
  """Raises a ProcessError if another program listens at the port."""
  with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind(("", port))
    except OSError as error:
      raise ProcessError(
        f"{place}: this process cannot listen at port {port} "
        f"({first_line(error)}). Give all processes another port, by "
        "--coordinator or, under a launcher, by the environment variable "
        "JAX_COORDINATOR_PORT."
      ) from error


def _wait_for(place: str, host: str, port: int) -> None:
  """Waits until process 0 listens, or raises a ProcessError."""
  deadline = time.monotonic() + _START_SECONDS
  while True:
    try:
      socket.create_connection((host, port), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > deadline:
        raise ProcessError(
          f"process 0 did not answer at {place} for {_START_SECONDS} s "
          f"({first_line(error)}). Check that it runs on that host, and that "
          "the port is open to this one."
        ) from error
    time.sleep(0.2)


def first_line(error: BaseException) -> str:
  """Returns the beginning of an error's message, on one line."""
  text = str(error).strip() or type(error).__name__
  return " ".join(text.splitlines()[0].split())[:300]


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
  # Devices are not asked: they may be what fails.
  if not jax.distributed.is_initialized():
    return
  time.sleep(_FAREWELL_SECONDS)
  leave_now(status)


def leave_now(status: int) -> None:
  """Ends this process without waiting for anything that it has started.

  Args:
    status: Exit status of the process.
  """
  # A signal that comes during a print may not print.
  with contextlib.suppress(RuntimeError):
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(status)
