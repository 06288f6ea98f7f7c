"""Trains in a bucket whose server fails, and compares the end with a folder's.

PYTHONPATH=.:tests python experiments/reliability/bucket_failures.py s3 flaky

The bucket is on a server on this machine, behind a proxy that fails on demand;
docs/buckets.md says what to install. The script fails if the run does not end
as it should.
"""

import argparse
import os
import pathlib
import tempfile
import time

import bucket_proxy
import bucket_runs
import bucket_servers
import child
from etils import epath

from hatebm_jax.run import checkpoint, files


def train_flaky(path: epath.Path, proxy: bucket_proxy.Proxy) -> None:
  """Trains while requests are slow and fail, and the server is away for 5 s.

  Args:
    path: Path of the workdir.
    proxy: Open proxy before the server.
  """
  proxy.share, proxy.delay = 0.05, 0.02
  run = bucket_runs.start(path)
  child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
  proxy.close()
  time.sleep(5)
  proxy.open()
  child.finish(run)
  proxy.share = 0.0
  print(f"failed requests: {proxy.counts}")


def train_twice(
  path: epath.Path, proxy: bucket_proxy.Proxy, failure: str
) -> None:
  """Trains until the server fails for good, and goes on when it answers again.

  Args:
    path: Path of the workdir.
    proxy: Open proxy before the server.
    failure: `503`, which answers all requests, or `closed`.
  """
  run = bucket_runs.start(path)
  child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
  if failure == "closed":
    proxy.close()
  else:
    proxy.share, proxy.failures = 1.0, (503,)
  begin = time.monotonic()
  output = child.finish(run, 1)
  print(f"ended after {time.monotonic() - begin:.0f} s")
  assert output.count("error:") == 1 and "Traceback" not in output, output
  print(output.splitlines()[-1])
  if failure == "closed":
    proxy.open()
  proxy.share = 0.0
  assert "Resuming at step" in child.finish(bucket_runs.start(path))


def main() -> None:
  """Trains with one kind of failure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("kind", choices=["gs", "s3"], help="kind of bucket")
  parser.add_argument("failure", choices=["flaky", "503", "closed"])
  args = parser.parse_args()
  os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind(args.kind, proxy) as url,
    tempfile.TemporaryDirectory() as folder,
  ):
    path, whole = files.as_path(f"{url}/run"), pathlib.Path(folder) / "whole"
    if args.failure == "flaky":
      train_flaky(path, proxy)
    else:
      train_twice(path, proxy, args.failure)
    child.finish(bucket_runs.start(whole))
    bucket_runs.assert_same_results(path, whole, pathlib.Path(folder))
  print(f"{args.kind}, {args.failure}: the same, to the bit")


if __name__ == "__main__":
  main()
