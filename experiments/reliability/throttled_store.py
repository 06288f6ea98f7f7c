"""Trains into a slow bucket and measures how long training waits for it.

python experiments/reliability/throttled_store.py OUT.json [--minutes 4.2]

The bucket is fake-gcs-server on this machine (docs/buckets.md says what to
install), behind a proxy that lets 50 MB of writes a second through. The state
of the run has about 445 MB, and a checkpoint is saved every two minutes. The
images are small and the batch has two of them, so that a CPU suffices.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import bucket_servers  # noqa: E402

from hatebm_jax.run import checkpoint, files, workdir  # noqa: E402

_RATE = 50e6  # bytes per second
_CHUNK = 1 << 18
_LAG = 0.1  # Seconds that a late chunk may catch up.
_BUCKET = "gs://bucket/run"
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


class Throttle:
  """Lets a number of bytes a second through, over all connections.

  Attributes:
    passed: Bytes that went through in each second, by `time.time()`.
  """

  def __init__(self, rate: float):
    self._rate = rate
    self._free = 0.0
    self.passed: collections.Counter[int] = collections.Counter()

  async def take(self, size: int) -> None:
    """Waits until `size` bytes may go through."""
    start = max(time.monotonic() - _LAG, self._free)
    self._free = start + size / self._rate
    await asyncio.sleep(max(self._free - time.monotonic(), 0))
    self.passed[int(time.time())] += size


async def _copy(
  reader: asyncio.StreamReader,
  writer: asyncio.StreamWriter,
  throttle: Throttle | None = None,
) -> None:
  """Copies one direction of a connection until it ends."""
  with contextlib.suppress(ConnectionError):
    while data := await reader.read(_CHUNK):
      if throttle:
        await throttle.take(len(data))
      writer.write(data)
      await writer.drain()
  writer.close()


def start_proxy(port: int, target: int, throttle: Throttle) -> None:
  """Starts a proxy in a thread, up to the end of this process.

  Args:
    port: Port that the proxy listens at.
    target: Port of the server on this machine.
    throttle: Limit of what all clients send.
  """

  async def connect(reader, writer):
    others = await asyncio.open_connection("127.0.0.1", target, limit=_CHUNK)
    await asyncio.gather(
      _copy(reader, others[1], throttle), _copy(others[0], writer)
    )

  loop = asyncio.new_event_loop()
  listen = asyncio.start_server(connect, "127.0.0.1", port, limit=_CHUNK)
  loop.run_until_complete(listen)
  threading.Thread(target=loop.run_forever, daemon=True).start()


def train(minutes: float, output: pathlib.Path) -> float:
  """Trains for a while after the first step, then stops the run.

  Args:
    minutes: Minutes after the first training step.
    output: File that takes what the run prints.

  Returns:
    Seconds from the signal to the end of the run.
  """
  command = [sys.executable, "-m", "hatebm_jax.main", f"--workdir={_BUCKET}"]
  with output.open("w") as file:
    run = subprocess.Popen(
      [*command, *_FLAGS], stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
    )
    started = lambda: "steps/s" in output.read_text()
    _wait(run, started, 600)
    _wait(run, lambda: False, 60 * minutes)
    signalled = time.monotonic()
    run.send_signal(signal.SIGTERM)
    if run.wait() != 128 + signal.SIGTERM:
      sys.exit(f"the run did not stop well:\n{output.read_text()}")
  return time.monotonic() - signalled


def _wait(
  run: subprocess.Popen, condition: Callable[[], bool], seconds: float
) -> None:
  """Waits for a condition for some seconds, while a run goes on."""
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    if run.poll() is not None:
      sys.exit("the run ended early")
    time.sleep(1)


def measure(throttle: Throttle) -> dict[str, float]:
  """Returns what the run's metrics say of its saves.

  Args:
    throttle: Throttle that the run's writes went through.
  """
  with checkpoint.Checkpoints(_BUCKET, read_only=True) as saved:
    shapes = saved.shapes(saved.newest_whole())
  # The first line is the compilation.
  lines = workdir.read_metrics(files.as_path(_BUCKET))[1:]
  seconds = np.array([1 / line["steps_per_second"] for line in lines])
  waited = seconds * [line["save_wait_fraction"] for line in lines]
  # The line after a save holds its seconds.
  ends = np.flatnonzero(waited > 0)
  saving = _seconds_of_writing(throttle)
  return {
    "state_mb": sum(4 * int(np.prod(shape)) for shape in shapes.values()) / 1e6,
    "written_mb": sum(throttle.passed.values()) / 1e6,
    "largest_mb_in_a_second": max(throttle.passed.values()) / 1e6,
    "saves": len(ends),
    "seconds_of_writing": saving,
    "seconds_of_training": float(seconds.sum()),
    "seconds_waited": [float(x) for x in waited[ends]],
    "save_wait_fraction": float(waited.sum() / seconds.sum()),
    "median_seconds_of_a_step": float(np.median(seconds)),
  }


def _seconds_of_writing(throttle: Throttle) -> list[int]:
  """Returns the length of each save: seconds in a row with over 5 MB."""
  busy = sorted(s for s, size in throttle.passed.items() if size > 5e6)
  breaks = np.flatnonzero(np.diff(busy) > 5) + 1
  return [int(part[-1] - part[0] + 1) for part in np.split(busy, breaks)]


def main() -> None:
  """Runs the experiment and writes what it has measured."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("out", type=pathlib.Path, help="the .json file to write")
  parser.add_argument("--minutes", type=float, default=4.2)
  args = parser.parse_args()
  server, front = bucket_servers.free_url(), bucket_servers.free_url()
  port_of = lambda url: int(url.rpartition(":")[2])
  throttle = Throttle(_RATE)
  with (
    tempfile.TemporaryDirectory() as root,
    bucket_servers.gs_at(front),
    bucket_servers.serve_gs(server, root),
  ):
    start_proxy(port_of(front), port_of(server), throttle)
    bucket_servers.make_gs_bucket(front)
    start = os.times()
    stop = train(args.minutes, args.out.with_suffix(".txt"))
    end = os.times()
    cpu = end.children_user + end.children_system - start.children_user
    result = measure(throttle) | {
      "seconds_to_stop": stop,
      "cores_used": cpu / (end.elapsed - start.elapsed),
      "jax": jax.__version__,
    }
  args.out.write_text(json.dumps(result, indent=1) + "\n")
  print(args.out.read_text())


if __name__ == "__main__":
  main()
