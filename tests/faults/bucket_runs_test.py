"""Whole runs in a bucket, on real servers on this machine."""

import os
import signal
import time

import bucket_servers
import chex
import child
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hatebm_jax import release, report
from hatebm_jax.run import buckets, checkpoint, files, lock, logs, npz, workdir

STEPS = 12
FLAGS = (
  f"--config.train.num_steps={STEPS}",
  "--config.train.log_every=2",
  "--config.train.image_every=4",
  "--config.train.checkpoint_every=2",
  "--config.sample.num_images=8",
  "--config.chains.num_chains=0",
)


def start(path):
  return child.start(path, *FLAGS, num_devices=1)


def read_state(folder):
  """Returns the arrays of a checkpoint, whatever devices it was written on."""
  checkpointer = ocp.PyTreeCheckpointer()
  tree = checkpointer.metadata(folder).item_metadata.tree
  as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
  return checkpointer.restore(folder, restore_args=jax.tree.map(as_numpy, tree))


def results(path, folder):
  """Returns all that a run leaves, but for times.

  Args:
    path: Path of the workdir.
    folder: Local folder for a copy of its checkpoint.
  """
  path = files.as_path(path)
  item = path / "checkpoints" / str(STEPS) / "default"
  for file in files.all_files(item):
    copy = folder / str(file).removeprefix(f"{item}/")
    files.write_atomic(copy, file.read_bytes())
  state = read_state(folder)
  lines = [
    {name: x for name, x in line.items() if name not in logs.TIMES}
    for line in workdir.read_metrics(path)
  ]
  images = npz.all_arrays(path / "samples" / f"{STEPS:08d}_raw.npz")
  return state, lines, images, workdir.read_evaluation(path)["sets"]


def assert_same_results(path, other, tmp_path):
  """Checks that two runs have left the same, to the bit."""
  found = results(path, tmp_path / "found")
  expected = results(other, tmp_path / "expected")
  assert len(jax.tree.leaves(found[0])) > 50
  chex.assert_trees_all_equal(found[0], expected[0])
  np.testing.assert_equal(found[1:], expected[1:])
  return found


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(bucket_url, tmp_path):
  path = files.as_path(bucket_url)
  run = start(path)
  child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
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
def test_two_processes_share_a_run(tmp_path):
  whole = tmp_path / "whole"
  with bucket_servers.gs() as url:
    path = files.as_path(f"{url}/run")
    for place in (path, whole):
      for run in child.start_two(place, *FLAGS):
        child.finish(run)
    assert_same_results(path, whole, tmp_path)


@pytest.mark.slow
def test_a_server_may_be_away_for_a_while(tmp_path):
  url, root = bucket_servers.free_url(), tmp_path / "root"
  with bucket_servers.gs_at(url):
    with bucket_servers.serve_gs(url, root):
      bucket_servers.make_gs_bucket(url)
      path = files.as_path("gs://bucket/run")
      run = start(path)
      child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
    time.sleep(5)
    assert run.poll() is None
    with bucket_servers.serve_gs(url, root):
      assert "warning" not in child.finish(run)
      whole = tmp_path / "whole"
      child.finish(start(whole))
      assert_same_results(path, whole, tmp_path)
