"""A real Slurm of one node on this machine."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import child
import pytest

PROGRAMS = "munged", "slurmctld", "slurmd", "srun", "sbatch"


def conf(folder, host):
  """Returns the text of slurm.conf, for a node that offers four CPUs."""
  ports = child.free_port(), child.free_port()
  return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is put back into the queue waits until its credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# A container may have no control groups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
# The numbers of jobs make the ports of JAX.
FirstJobId={1 + os.getpid() % 4000}
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def needed():
  """Skips the test where Slurm cannot run."""
  path = os.environ["PATH"] + ":/usr/sbin:/sbin"
  missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
  if missing:
    pytest.skip(f"needs the programs {missing}: apt-get install slurm-wlm")
  if os.getuid():
    pytest.skip("needs root, to start a node of Slurm")
  return path


@contextlib.contextmanager
def cluster():
  """Starts Slurm, and stops it with all of its jobs.

  Yields:
    The environment in which commands such as srun find it.
  """
  path = needed()
  host = socket.gethostname().partition(".")[0]
  # A socket's path must be short.
  folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm"))
  for name in ("state", "spool"):
    (folder / name).mkdir()
  key = folder / "key"
  key.write_bytes(os.urandom(128))
  key.chmod(0o400)
  (folder / "slurm.conf").write_text(conf(folder, host))
  environment = {
    **os.environ,
    "PATH": path,
    "SLURM_CONF": f"{folder}/slurm.conf",
  }
  munge = (
    *("munged", "--foreground", "--force", f"--key-file={key}"),
    *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"),
    *(f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"),
  )
  with contextlib.ExitStack() as stack:
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    start = lambda *command: stack.enter_context(
      _running(command, environment, folder / f"{command[0]}.out")
    )
    start(*munge)
    _wait_for((folder / "munge.socket").exists, folder)
    start("slurmctld", "-D")
    start("slurmd", "-D")
    state = lambda: _output(environment, "sinfo", "--noheader", "-o", "%T")
    _wait_for(lambda: state() == "idle", folder)
    stack.callback(_cancel_all, environment)
    yield environment


@contextlib.contextmanager
def _running(command, environment, log):
  """Runs a program until the context is left."""
  with log.open("w") as file:
    process = subprocess.Popen(
      command, env=environment, stdout=file, stderr=subprocess.STDOUT
    )
  try:
    yield process
  finally:
    process.terminate()
    process.wait(60)


def _output(environment, *command):
  """Returns what a command printed, or an empty text if it failed."""
  result = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  return "" if result.returncode else result.stdout.strip()


def _cancel_all(environment):
  """Ends the jobs that a failed test has left."""
  queue = lambda: _output(environment, "squeue", "--noheader")
  if queue():
    subprocess.run(
      ["scancel", "--full", "--signal=KILL", "--user=root"], env=environment
    )
    deadline = time.monotonic() + 60
    while queue() and time.monotonic() < deadline:
      time.sleep(0.2)


def _wait_for(condition, folder):
  """Waits until a part of Slurm has started; shows the logs if it does not."""
  logs = lambda: "\n".join(
    f"{log.name}\n{log.read_text()}" for log in folder.glob("*.out")
  )
  child.wait_for(None, condition, 60, pause=0.1, output=logs)
