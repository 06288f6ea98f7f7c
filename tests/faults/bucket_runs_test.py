"""Whole runs in a bucket, on real servers on this machine."""

import os
import re
import signal
import time

import bucket_proxy
import bucket_servers
import child
import pytest
from bucket_runs import (
  FLAGS,
  STEPS,
  assert_same_results,
  start,
  start_until_saved,
  train_twice,
)

from hatebm_jax import release, report
from hatebm_jax.run import buckets, checkpoint, files, lock


def start_quickly(path):
  """Starts the run with the compiled programs of the tests before it."""
  return start(path, cache=os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  """Returns the workdir of an uninterrupted run in a folder."""
  path = tmp_path_factory.mktemp("uninterrupted")
  child.finish(start_quickly(path))
  return path


@pytest.mark.parametrize(
  "bucket_url",
  ["gs", pytest.param("s3", marks=pytest.mark.slow)],
  indirect=True,
)
def test_a_killed_run_leaves_the_same(bucket_url, uninterrupted, tmp_path):
  path = files.as_path(bucket_url)
  run = start_quickly(path)
  child.wait_for(run, lambda: checkpoint.steps(path))
  run.kill()
  child.finish(run, -signal.SIGKILL)
  assert 0 < max(checkpoint.steps(path)) < STEPS
  assert "Resuming at step" in child.finish(start_quickly(path))
  assert_same_results(path, uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(bucket_url, tmp_path):
  path = files.as_path(bucket_url)
  run = start_until_saved(path)
  run.send_signal(signal.SIGKILL)
  child.finish(run, -signal.SIGKILL)
  with lock.hold(path):
    output = child.finish(start(path), 1)
  assert f"error: {path} is in use by process {os.getpid()} on" in output
  assert 0 < max(checkpoint.steps(path)) < STEPS

  output = child.finish(start(path))
  assert "Resuming at step" in output and "warning" not in output
  whole = tmp_path / "whole"
  child.finish(start(whole))
  found = assert_same_results(path, whole, tmp_path)
  assert [line["step"] for line in found[1]] == list(range(2, STEPS + 1, 2))
  names = {name.partition("/")[0] for name in buckets.objects(path)}
  local = {entry.name for entry in files.entries(whole)}
  events = {name for name in names | local if name.startswith("events.")}
  parts = {name for name in names if name.startswith("metrics.jsonl.")}
  assert names - events - parts == local - events
  assert events & names and parts

  assert report.write(path).read_text().count("data:image/png") > 4
  made = release.from_run(path, path / "release")
  assert release.check(made)[0]


@pytest.mark.slow
def test_two_processes_are_killed_and_go_on_as_two_and_as_one(
  bucket_url, tmp_path
):
  path, whole = files.as_path(bucket_url), tmp_path / "whole"
  steps = f"--config.train.num_steps={STEPS}"
  pair = child.start_two(path, *FLAGS, steps)
  child.wait_for(pair[0], lambda: len(checkpoint.steps(path)) > 1)
  for run in pair[::-1]:
    run.send_signal(signal.SIGKILL)
  child.finish_all(pair, -signal.SIGKILL)
  assert 0 < max(checkpoint.steps(path)) < STEPS

  outputs = child.finish_all(child.start_two(path, *FLAGS, steps))
  assert "Resuming at step" in outputs[0]
  child.finish_all(child.start_two(whole, *FLAGS, steps))
  assert_same_results(path, whole, tmp_path)

  for place in (path, whole):
    assert f"Resuming at step {STEPS}" in child.finish(start(place, STEPS + 2))
  assert_same_results(path, whole, tmp_path / "one", STEPS + 2)

  pair = child.start_two(path, *FLAGS, "--config.train.num_steps=1000")
  child.wait_for(pair[0], lambda: max(checkpoint.steps(path)) > STEPS + 2)
  pair[1].send_signal(signal.SIGTERM)
  last = set()
  for run in pair:
    output = child.finish(run, 143)
    last.add(re.search(r"Stopped at training step (\d+)", output)[1])
  assert last == {str(max(checkpoint.steps(path)))}


@pytest.mark.slow
def test_a_server_may_be_away_for_a_while(tmp_path):
  url, root = bucket_servers.free_url(), tmp_path / "root"
  with bucket_servers.gs_at(url):
    with bucket_servers.serve_gs(url, root):
      bucket_servers.make_gs_bucket(url)
      path = files.as_path("gs://bucket/run")
      run = start_until_saved(path)
    time.sleep(5)
    assert run.poll() is None
    with bucket_servers.serve_gs(url, root):
      assert "warning" not in child.finish(run)
      whole = tmp_path / "whole"
      child.finish(start(whole))
      assert_same_results(path, whole, tmp_path)


@pytest.mark.slow
def test_a_server_may_refuse_all_connections(tmp_path):
  whole = tmp_path / "whole"
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind("gs", proxy) as url,
  ):
    path = files.as_path(f"{url}/run")
    train_twice(path, proxy, "closed")
    child.finish(start(whole))
    assert_same_results(path, whole, tmp_path)
