"""Runs hatebm_jax.main in real processes."""

import contextlib
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
# Code after which TensorFlow is as good as not installed.
HIDE_TENSORFLOW = """
from importlib.machinery import PathFinder
def find(name, *args, _old=PathFinder.find_spec):
  return None if name == "tensorflow" else _old(name, *args)
PathFinder.find_spec = find
"""
# A test may read one process after the other. The pipe of one that has to wait
# must hold all that it prints, or it would stop there and the others with it.
STDERR_TOO = {
  "stdout": subprocess.PIPE,
  "stderr": subprocess.STDOUT,
  "pipesize": 2**20,
}


def start(path, *flags, num_devices=8, prefix=(), cache=None):
  """Starts the tiny run of tests/tiny_config.py in a workdir.

  Args:
    path: Workdir of the run.
    *flags: Flags of the command.
    num_devices: Number of virtual devices.
    prefix: First words of the command, such as `("prlimit", ...)`.
    cache: Folder of compiled programs; None: the workdir's own, as in a user's
      run.

  Returns:
    The process, a `subprocess.Popen`.
  """
  environment = {
    **os.environ,
    "PYTHONPATH": ":".join([str(ROOT), str(ROOT / "tests"), *sys.path]),
    # If a flag is given twice, the last one counts.
    "XLA_FLAGS": os.environ["XLA_FLAGS"]
    + f" --xla_force_host_platform_device_count={num_devices}",
  }
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  if cache:
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
  command = [
    *prefix,
    *(sys.executable, "-m", "hatebm_jax.main"),
    "--config=tests/tiny_config.py",
    f"--workdir={path}",
    *flags,
  ]
  return subprocess.Popen(
    command, cwd=ROOT, text=True, env=environment, **STDERR_TOO
  )


def python(code, *folders):
  """Runs Python code in a process of its own, which may import tests' helpers.

  Args:
    code: Program text.
    *folders: Folders whose modules come before all others.

  Returns:
    What the program printed on stdout.
  """
  folders = [*map(str, folders), str(ROOT), str(ROOT / "tests")]
  result = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": ":".join(folders)},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def free_port():
  """Returns a port of this machine that nobody listens at.

  It is not one of those that the system gives to outgoing connections, so it
  stays free until a process that is still starting takes it.
  """
  while True:
    port = random.SystemRandom().randrange(20_000, 30_000)
    with socket.socket() as free, contextlib.suppress(OSError):
      free.bind(("127.0.0.1", port))
      return port


def start_two(path, *flags):
  """Starts one run of two processes with two devices each."""
  coordinator = f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"
  return [
    start(path, *coordinator, f"--process_id={i}", *flags, num_devices=2)
    for i in range(2)
  ]


def finish(process, status=0):
  """Waits for a process and returns what it printed."""
  output, _ = process.communicate(timeout=600)
  assert process.returncode == status, output
  return output


def finish_all(processes, status=0):
  """Waits for processes and returns what each of them printed."""
  outputs = [process.communicate(timeout=600)[0] for process in processes]
  states = [process.returncode for process in processes]
  assert set(states) == {status}, "\n".join([f"{states}", *outputs])
  return outputs


def wait_for(process, condition, seconds=300, pause=0.001, output=None):
  """Waits until a condition holds.

  Args:
    process: Process that must not end before; None if there is none.
    condition: Function without arguments.
    seconds: Seconds after which the wait has failed.
    pause: Seconds between two looks.
    output: Function that returns the text to show if the wait fails. Without
      it this is what a process that has ended has printed.
  """
  deadline = time.monotonic() + seconds
  while not condition():
    if process and process.poll() is not None:
      raise AssertionError(output() if output else process.stdout.read())
    if time.monotonic() > deadline:
      raise AssertionError(output() if output else "nothing happened")
    time.sleep(pause)
