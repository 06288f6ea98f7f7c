"""Trains in a bucket whose server fails, and compares the end with a folder's.

PYTHONPATH=.:tests python experiments/reliability/bucket_failures.py s3 flaky

The bucket is on a server on this machine, behind a proxy that fails on demand;
docs/buckets.md says what to install. Without the name of a failure, all are
tried. All runs share a local cache of compiled programs. The script fails if a
run does not end as it should.
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

from hatebm_jax.run import files

# What `Proxy.failing` takes, by the words of the command line.
_FAILURES = {"503": 503, "closed": "closed", "silent": "silent"}


def train_flaky(
  path: epath.Path, proxy: bucket_proxy.Proxy, cache: pathlib.Path
) -> None:
  """Trains while requests are slow and fail, and the server is away for 5 s.

  Args:
    path: Path of the workdir.
    proxy: Open proxy before the server.
    cache: Folder of compiled programs.
  """
  proxy.counts.clear()
  proxy.share, proxy.delay = 0.05, 0.02
  run = bucket_runs.start_until_saved(path, cache)
  with proxy.failing("closed"):
    time.sleep(5)
  child.finish(run)
  proxy.share = proxy.delay = 0.0
  print(f"failed requests: {dict(proxy.counts)}")


def main() -> None:
  """Trains with each kind of failure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("kind", choices=["gs", "s3"], help="kind of bucket")
  names = ["flaky", *_FAILURES]
  parser.add_argument("failures", nargs="*", help=f"of {names}; default: all")
  args = parser.parse_args()
  os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind(args.kind, proxy) as url,
    tempfile.TemporaryDirectory() as name,
  ):
    folder = pathlib.Path(name)
    whole, cache = folder / "whole", folder / "cache"
    child.finish(bucket_runs.start(whole, cache=cache))
    for failure in args.failures or names:
      path = files.as_path(f"{url}/{failure}")
      if failure == "flaky":
        train_flaky(path, proxy, cache)
      else:
        bucket_runs.train_twice(path, proxy, _FAILURES[failure], cache)
      bucket_runs.assert_same_results(path, whole, folder / failure)
      print(f"{args.kind}, {failure}: the same, to the bit", flush=True)


if __name__ == "__main__":
  main()
