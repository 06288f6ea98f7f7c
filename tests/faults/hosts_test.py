"""One of the two processes of a run is killed, or fails."""

import json
import re
import shutil
import signal
import time

import child
import numpy as np
import pytest

from hatebm_jax.run import checkpoint

FLAGS = (
  "--config.train.image_every=20",
  "--config.train.checkpoint_every=10",
  "--config.chains.num_chains=0",
)
# JAX gives a process up after 100 seconds. Measured were 0.2 to 77 seconds.
STATED_SECONDS = 120


def start_two(path, num_steps):
  flags = f"--config.train.num_steps={num_steps}"
  return child.start_two(path, *FLAGS, flags)


def losses(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  return [(line["step"], line["hat_loss"]) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_ends_in_time_and_both_resume(tmp_path, victim):
  path = tmp_path / "run"
  pair = start_two(path, 100_000)
  child.wait_for(pair[0], (path / "checkpoints" / "20").exists)
  pair[victim].kill()
  started = time.monotonic()
  other = pair[1 - victim]
  # JAX aborts it, with a message of its own: no Python code runs any more.
  output = child.finish(other, -signal.SIGABRT)
  assert time.monotonic() - started < STATED_SECONDS
  assert re.search("JAX distributed service|coordination", output)

  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = saved.newest_whole()
  num_steps = step + 10
  child.finish_all(start_two(path, num_steps))
  whole = tmp_path / "whole"
  child.finish_all(start_two(whole, num_steps))
  np.testing.assert_equal(losses(path), losses(whole))


@pytest.mark.slow
def test_a_second_run_of_two_is_refused_on_both(tmp_path):
  path = tmp_path / "run"
  pair = start_two(path, 100_000)
  child.wait_for(pair[0], (path / "metrics.jsonl").exists)
  for process in start_two(path, 20):
    output = child.finish(process, 1)
    assert f"error: {path} is in use" in output
  assert all(process.poll() is None for process in pair)
  pair[1].send_signal(signal.SIGTERM)
  for process in pair:
    assert "Stopped at training step" in child.finish(process, 143)


@pytest.mark.slow
def test_both_fall_back_from_a_broken_checkpoint(tmp_path):
  path = tmp_path / "run"
  child.finish_all(start_two(path, 20))
  shutil.rmtree(path / "checkpoints" / "20" / "default")
  first, second = start_two(path, 22)
  output = child.finish(first)
  assert "the checkpoint of training step 20" in output
  assert "Resuming at step 10" in output
  child.finish(second)
  assert (path / "broken_checkpoints" / "20.0").exists()
