"""Two processes keep checkpoints on s3://, where they share no folder."""

import os
import pathlib
import subprocess
import sys

import bucket_servers
import child
import pytest

PROGRAM = pathlib.Path(child.ROOT) / "tests" / "bucket_hosts.py"


def start_two(url, folder):
  """Starts the program in two processes with folders of their own."""
  port = str(child.free_port())
  return [_start(port, index, url, folder / index) for index in "01"]


def _start(port, index, url, place):
  """Starts the program in one process."""
  place.mkdir()
  return subprocess.Popen(
    [sys.executable, PROGRAM, port, index, url],
    env=os.environ
    | {
      "PYTHONPATH": ":".join([str(child.ROOT), *sys.path]),
      "TMPDIR": str(place),
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    },
    text=True,
    **child.STDERR_TOO,
  )


@pytest.mark.slow
def test_two_processes_save_restore_and_fail_together(tmp_path):
  with bucket_servers.s3() as url:
    first, second = child.finish_all(start_two(f"{url}/run", tmp_path))
  broken = "the checkpoint of training step 6"
  assert broken in first and broken not in second
  failed = "error: A checkpoint could not be written to s3://bucket/run"
  assert failed in first and failed in second
  assert "is not there" in first
  assert "the message of process 0 says why" in second
  assert not list(tmp_path.glob("*/hatebm_checkpoints_*"))
