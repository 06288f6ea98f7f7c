"""Kills a run in a bucket many times, and compares its end with a folder's.

PYTHONPATH=.:tests python experiments/reliability/bucket_kills.py gs OUT.json

The bucket is on a server on this machine; docs/buckets.md says what to install.
The run is killed with SIGKILL at random times: at its start, while it trains,
and while a checkpoint is half written. Each start resumes it. The script fails
if the end differs from that of an uninterrupted run in a folder.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import bucket_runs
import bucket_servers
import child
from etils import epath

from hatebm_jax.run import checkpoint, files, workdir

_MANY = 10_000  # training steps, more than a run takes before the last kill
_MORE = 10  # training steps after the last kill, an even number


def last_step(path: epath.Path) -> int:
  """Returns the training step that was logged last; 0 if none was.

  Args:
    path: Path of the workdir.
  """
  lines = workdir.read_metrics(path)
  return lines[-1]["step"] if lines else 0


def is_saving(path: epath.Path) -> bool:
  """Returns whether a checkpoint is half written.

  Args:
    path: Path of the workdir.
  """
  found = {x.name for x in files.entries(path / "checkpoints")}
  return bool(found - {str(step) for step in checkpoint.steps(path)})


def kill(
  run: subprocess.Popen, path: epath.Path, generator: random.Random
) -> dict[str, str | bool | int]:
  """Kills a run at a random time.

  Args:
    run: Process that has just been started.
    path: Path of the workdir.
    generator: Source of random numbers.

  Returns:
    Where the run was to be killed, whether a checkpoint was half written when
    it ended, and the training step that was logged last.
  """
  where = generator.choice(["start", "training", "saving", "saving"])
  if where == "start":
    time.sleep(generator.uniform(0, 12))
  else:
    before = last_step(path)
    child.wait_for(run, lambda: last_step(path) > before, 600, pause=0.05)
    if where == "saving":
      child.wait_for(run, lambda: is_saving(path), 600, pause=0.005)
    time.sleep(generator.uniform(0, 0.05 if where == "saving" else 0.5))
  run.kill()
  child.finish(run, -signal.SIGKILL)
  return {"where": where, "saving": is_saving(path), "step": last_step(path)}


def main() -> None:
  """Kills a run and writes what happened after each kill."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("kind", choices=["gs", "s3"], help="kind of bucket")
  parser.add_argument("out", type=pathlib.Path, help="the .json file to write")
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
  generator, record = random.Random(args.seed), []
  server = {"gs": bucket_servers.gs, "s3": bucket_servers.s3}[args.kind]
  with server() as url, tempfile.TemporaryDirectory() as folder:
    path = files.as_path(f"{url}/run")
    for _ in range(args.kills):
      run = bucket_runs.start(path, _MANY)
      record.append(kill(run, path, generator))
      print(len(record), record[-1], flush=True)
      args.out.write_text(
        json.dumps(vars(args) | {"kills": record}, default=str)
      )
    num_steps, whole = last_step(path) + _MORE, pathlib.Path(folder) / "whole"
    for place in (path, whole):
      child.finish(bucket_runs.start(place, num_steps))
    bucket_runs.assert_same_results(
      path, whole, pathlib.Path(folder), num_steps
    )
  print(f"{args.kills} kills, seed {args.seed}: the same, to the bit")


if __name__ == "__main__":
  main()
