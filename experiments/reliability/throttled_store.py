"""Trains into a slow bucket and measures how long training waits for it.

PYTHONPATH=.:tests python experiments/reliability/throttled_store.py OUT.json

The bucket is on a server on this machine, behind a proxy that lets 50 MB of
writes a second through. The state of the run has about 445 MB, and a checkpoint
is saved every two minutes. The images are small and the batch has two of them,
so that a CPU suffices.
"""

import argparse
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import bucket_proxy
import bucket_servers
import child
import jax
import numpy as np
from etils import epath

from hatebm_jax.run import checkpoint, files, workdir

_RATE = 50e6  # bytes per second
_FLAGS = (
  "--config=configs/digits.py",
  "--config.model.width=512",
  "--config.train.batch_size=2",
  "--config.generator.bank_size=24",
  "--config.langevin.num_steps=2",
  "--config.train.num_steps=1000000",
  "--config.train.log_every=1",
  "--config.train.image_every=1000000",
  "--config.train.checkpoint_every=1000000",
  "--config.train.checkpoint_minutes=2",
  "--config.train.keep_checkpoints=2",
)


def train(path: epath.Path, minutes: float, output: pathlib.Path) -> float:
  """Trains for a while after the first step, then stops the run.

  Args:
    path: Path of the workdir.
    minutes: Minutes after the first training step.
    output: File that takes what the run prints.

  Returns:
    Seconds from the signal to the end of the run.
  """
  command = [sys.executable, "-m", "hatebm_jax.main", f"--workdir={path}"]
  with output.open("w") as file:
    run = subprocess.Popen(
      [*command, *_FLAGS], stdout=file, stderr=subprocess.STDOUT, cwd=child.ROOT
    )
    started = lambda: "steps/s" in output.read_text()
    child.wait_for(run, started, 600, pause=1, output=output.read_text)
    end = time.monotonic() + 60 * minutes
    is_over = lambda: time.monotonic() > end
    child.wait_for(run, is_over, math.inf, pause=1, output=output.read_text)
    signalled = time.monotonic()
    run.send_signal(signal.SIGTERM)
    if run.wait() != 128 + signal.SIGTERM:
      sys.exit(f"the run did not stop well:\n{output.read_text()}")
  return time.monotonic() - signalled


def measure(path: epath.Path, proxy: bucket_proxy.Proxy) -> dict[str, float]:
  """Returns what the run's metrics say of its saves.

  Args:
    path: Path of the workdir.
    proxy: Proxy that the run's writes went through.
  """
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    shapes = saved.shapes(saved.newest_whole())
  # The first line is the compilation.
  lines = workdir.read_metrics(path)[1:]
  seconds = np.array([1 / line["steps_per_second"] for line in lines])
  waited = seconds * [line["save_wait_fraction"] for line in lines]
  # The line after a save holds its seconds.
  ends = np.flatnonzero(waited > 0)
  return {
    "state_mb": sum(4 * int(np.prod(shape)) for shape in shapes.values()) / 1e6,
    "written_mb": sum(proxy.sent.values()) / 1e6,
    "largest_mb_in_a_second": max(proxy.sent.values()) / 1e6,
    "saves": len(ends),
    "seconds_of_writing": _seconds_of_writing(proxy),
    "seconds_of_training": float(seconds.sum()),
    "seconds_waited": [float(x) for x in waited[ends]],
    "save_wait_fraction": float(waited.sum() / seconds.sum()),
    "median_seconds_of_a_step": float(np.median(seconds)),
  }


def _seconds_of_writing(proxy: bucket_proxy.Proxy) -> list[int]:
  """Returns the length of each save: seconds in a row with over 5 MB."""
  busy = sorted(s for s, size in proxy.sent.items() if size > 5e6)
  breaks = np.flatnonzero(np.diff(busy) > 5) + 1
  return [int(part[-1] - part[0] + 1) for part in np.split(busy, breaks)]


def main() -> None:
  """Runs the experiment and writes what it has measured."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=pathlib.Path, help="the .json file to write")
  parser.add_argument("--minutes", type=float, default=4.2)
  args = parser.parse_args()
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind("gs", proxy) as url,
  ):
    proxy.rate = _RATE
    path = files.as_path(f"{url}/run")
    start = os.times()
    stop = train(path, args.minutes, args.out.with_suffix(".txt"))
    end = os.times()
    cpu = end.children_user + end.children_system - start.children_user
    result = measure(path, proxy) | {
      "seconds_to_stop": stop,
      "cores_used": cpu / (end.elapsed - start.elapsed),
      "jax": jax.__version__,
    }
  args.out.write_text(json.dumps(result, indent=1) + "\n")
  print(args.out.read_text())


if __name__ == "__main__":
  main()
