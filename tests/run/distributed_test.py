"""How processes find each other; what does not fit together, in one line."""

import os
import socket
import subprocess
import sys

import child
import jax
import pytest

from hatebm_jax.run import distributed


@pytest.mark.parametrize(
  "flags, message",
  [
    (("host:1234", None, None), "--num_processes, --process_id is missing"),
    (("host:1234", 2, None), "--process_id is missing"),
    (("", 2, 0), "--coordinator is missing"),
    ((None, None, 0), "--coordinator, --num_processes is missing"),
    ((None, 4, 3), "--coordinator is missing"),
    (("host", 2, 0), "expected HOST:PORT"),
    ((":1234", 2, 0), "expected HOST:PORT"),
    (("host:", 2, 0), "expected HOST:PORT"),
    (("host:http", 2, 0), "expected HOST:PORT"),
    (("host:0", 2, 0), "a port from 1 to 65535"),
    (("host:70000", 2, 0), "a port from 1 to 65535"),
    (("host:1234", 0, 0), "--num_processes=0: expected"),
    (("host:1234", 2, 2), "--process_id=2: expected a number from 0 to 1"),
    (("host:1234", 2, -1), "--process_id=-1: expected a number from 0 to 1"),
  ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, message):
  with pytest.raises(distributed.ProcessError, match=message):
    distributed.start(*flags)


def test_one_process_needs_no_flags():
  distributed.start(None, None, None)


def test_a_port_in_use_is_an_error_of_one_line():
  code = """
import socket
from hatebm_jax.run import distributed
taken = socket.socket()
taken.bind(("127.0.0.1", 0))
taken.listen()
try:
  distributed.start(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0)
except distributed.ProcessError as error:
  print(error)
"""
  (line,) = child.python(code).splitlines()
  assert "cannot listen at port" in line and "another port" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_coordinator_that_does_not_answer_is_named(monkeypatch, host):
  monkeypatch.setattr(distributed, "_START_SECONDS", 0.5)
  address = f"{host}:{child.free_port()}"
  with pytest.raises(distributed.ProcessError, match="did not answer at") as e:
    distributed.start(address, 2, 1)
  assert address in str(e.value)


def slurm_step(process_id, job=77, **changed):
  """Returns the variables of one of two tasks that srun has started."""
  return {
    "SLURM_JOB_ID": str(job),
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": str(process_id),
    "SLURM_LOCALID": str(process_id),
    **changed,
  }


def free_job():
  """Returns the number of a Slurm job for which JAX takes a free port."""
  for job in range(os.getpid(), os.getpid() + 100):
    with socket.socket() as listener:
      try:
        listener.bind(("", 61440 + job % 4096))
        return job
      except OSError:
        continue
  raise AssertionError("no free port")


@pytest.fixture
def environment(monkeypatch):
  """Sets variables, in place of those of a launcher of the tests."""
  for name in list(os.environ):
    if name.startswith(("SLURM_", "OMPI_")):
      monkeypatch.delenv(name)

  def put(variables):
    for name, value in variables.items():
      monkeypatch.setenv(name, value)

  return put


def test_the_tasks_of_a_step_of_slurm_find_each_other():
  code = """
import jax
from hatebm_jax.run import distributed
distributed.start(None, None, None)
print("This is", jax.process_index(), "of", jax.process_count())
"""
  job = free_job()
  tasks = [
    subprocess.Popen(
      [sys.executable, "-c", code],
      env={**os.environ, "PYTHONPATH": str(child.ROOT), **slurm_step(i, job)},
      text=True,
      **child.STDERR_TOO,
    )
    for i in range(2)
  ]
  for i, task in enumerate(tasks):
    output = child.finish(task)
    assert f"Process {i} of 2, found through Slurm." in output
    assert f"This is {i} of 2" in output


@pytest.mark.parametrize(
  "variables, num_processes",
  [
    pytest.param(
      {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
      None,
      id="batch script",
    ),
    pytest.param(
      slurm_step(0, SLURM_STEP_NUM_TASKS="1", SLURM_NTASKS="4"),
      None,
      id="shell of salloc",
    ),
    pytest.param(
      slurm_step(0, OMPI_COMM_WORLD_SIZE="1"), None, id="mpirun -n 1"
    ),
    pytest.param(slurm_step(1), 1, id="--num_processes=1"),
  ],
)
def test_a_process_that_is_alone_joins_nobody(
  environment, variables, num_processes
):
  environment(variables)
  distributed.start(None, num_processes, None)
  assert not jax.distributed.is_initialized()


@pytest.mark.parametrize("step", [{}, slurm_step(0, SLURM_NTASKS="1")])
def test_open_mpi_that_jax_does_not_know_is_an_error(environment, step):
  # Open MPI 5 does not say where process 0 is. In a job of Slurm, its daemons
  # are a step.
  environment(
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", **step}
  )
  with pytest.raises(distributed.ProcessError, match="Open MPI has started"):
    distributed.start(None, None, None)


def test_a_task_whose_first_task_is_silent_names_slurm(
  environment, monkeypatch
):
  monkeypatch.setattr(distributed, "_START_SECONDS", 0.5)
  job = free_job()
  environment(slurm_step(1, job))
  address = f"localhost:{61440 + job % 4096}, the address found through Slurm"
  with pytest.raises(
    distributed.ProcessError, match=f"not answer at {address}"
  ):
    distributed.start(None, None, None)
