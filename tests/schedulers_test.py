"""Runs that a real Slurm and a real mpirun have started, without flags."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import child
import numpy as np
import pytest
import run_metrics
import slurm

from hatebm_jax.run import workdir

pytestmark = pytest.mark.slow

RUN = "--config.train.image_every=100", "--config.chains.num_chains=0"
RECIPE = pathlib.Path("docs/recipes/slurm.sh")
COUNT = """
import jax
from hatebm_jax.run import distributed
distributed.start(None, {}, None)
print("process", jax.process_index(), "of", jax.process_count())
"""


@pytest.fixture(scope="module")
def environment():
  """The environment of a real Slurm of one node."""
  try:
    socket.gethostbyname(socket.gethostname())
  except OSError:
    pytest.skip("needs a name of this machine that has an address")
  with slurm.cluster() as environment:
    yield environment


@pytest.fixture(scope="module")
def by_flags(tmp_path_factory):
  """The workdir of a run that the three flags have started."""
  path = tmp_path_factory.mktemp("flags")
  child.finish_all(child.start_two(path, *RUN))
  return path


def with_environment(environment, *command):
  """Returns a command that runs in an environment."""
  changed = {"PATH", "SLURM_CONF"}
  return ("env", *(f"{name}={environment[name]}" for name in changed), *command)


def count(environment, *launcher, num_processes=None):
  """Returns the sorted lines in which processes say what they found."""
  result = subprocess.run(
    [*launcher, sys.executable, "-c", COUNT.format(num_processes)],
    env={**environment, "PYTHONPATH": ":".join([str(child.ROOT), *sys.path])},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  return sorted(line for line in lines if line.startswith("process"))


def assert_same_run(one, two):
  """Compares metrics and samples of two runs exactly."""
  run_metrics.assert_same(one, two, num_steps=4)
  samples = "samples/00000004_raw.npz"
  with np.load(one / samples) as a, np.load(two / samples) as b:
    np.testing.assert_array_equal(a["images"], b["images"])


def test_slurm_starts_the_run_of_the_flags(environment, by_flags, tmp_path):
  prefix = with_environment(environment, "srun", "-n2")
  process = child.start(tmp_path, *RUN, num_devices=2, prefix=prefix)
  output = child.finish(process)
  for i in range(2):
    assert f"Process {i} of 2, found through Slurm." in output
  assert_same_run(tmp_path, by_flags)


def test_mpirun_starts_the_run_of_the_flags(by_flags, tmp_path):
  if not shutil.which("mpirun"):
    pytest.skip("needs mpirun: apt-get install openmpi-bin")
  prefix = ["mpirun", "--oversubscribe", "-n", "2"]
  if not os.getuid():
    prefix.insert(1, "--allow-run-as-root")
  process = child.start(tmp_path, *RUN, num_devices=2, prefix=prefix)
  output = child.finish(process)
  for i in range(2):
    assert f"Process {i} of 2, found through Open MPI." in output
  assert_same_run(tmp_path, by_flags)


def test_a_command_of_a_job_that_is_no_step_is_alone(environment):
  # `salloc COMMAND` and a batch script have the variables of the job alone.
  assert count(environment, "salloc", "-n4") == ["process 0 of 1"]


def test_a_shell_of_salloc_is_alone(environment):
  # This step has SLURM_NTASKS=4, which JAX takes for the number of processes.
  # Its options are the default of InteractiveStepOptions, less the terminal.
  step = "srun", "--interactive", "--preserve-env", "-n1", "-N1"
  assert count(environment, "salloc", "-n4", *step) == ["process 0 of 1"]


def test_tasks_can_be_runs_of_their_own(environment):
  lines = count(environment, "srun", "-n2", num_processes=1)
  assert lines == ["process 0 of 1"] * 2


def job_state(environment, job):
  """Returns the fields of a job, such as JobState."""
  result = subprocess.run(
    ["scontrol", "--oneliner", "show", "job", job],
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  pairs = (word.partition("=") for word in result.stdout.split())
  return {name: value for name, _, value in pairs}


def submit(environment, path, script):
  """Submits a batch script for one task; returns the number of the job."""
  variables = {
    "PYTHONPATH": ":".join([str(child.ROOT), f"{child.ROOT}/tests", *sys.path]),
    # The run is to use its own cache, as a user's run does.
    "JAX_COMPILATION_CACHE_DIR": "",
  }
  result = subprocess.run(
    [
      *("sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=1"),
      *("--cpus-per-task=1", f"--output={path}"),
    ],
    cwd=child.ROOT,
    env={**environment, **variables},
    input=script,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.strip()


def test_the_script_of_the_recipe_goes_on_after_a_sigterm(
  environment, tmp_path
):
  path, log = tmp_path / "run", tmp_path / "log"
  command = (
    f"{sys.executable} -m hatebm_jax.main --config=tests/tiny_config.py "
    f"--workdir={path} --config.train.num_steps=150 "
    f"--config.train.checkpoint_every=1000 {' '.join(RUN)}"
  )
  script = (child.ROOT / RECIPE).read_text()
  (line,) = [line for line in script.splitlines() if line.startswith("srun")]
  script = script.replace(line, f"srun {command}")
  script = script.replace("#SBATCH --gpus-per-node=4\n", "")
  job = submit(environment, log, script)
  wait_for = lambda condition: child.wait_for(
    None, condition, 500, pause=0.1, output=log.read_text
  )
  wait_for((path / "metrics.jsonl").exists)
  # Slurm sends the signal of --signal=TERM@120 to the step too, not the script.
  subprocess.run(["scancel", "--signal=TERM", job], env=environment, check=True)
  ends = "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"
  wait_for(lambda: job_state(environment, job)["JobState"] in ends)
  state, output = job_state(environment, job), log.read_text()
  assert state["JobState"] == "COMPLETED", output
  assert state["Restarts"] == "1" and state["ExitCode"] == "0:0"
  assert "Stopped at training step" in output
  assert "exit code 143" in output and "Resuming at step" in output
  steps = [line["step"] for line in workdir.read_metrics(path)]
  assert steps == list(range(1, 151))
