"""Compares two processes of two devices each with one process of four."""

import child
import numpy as np
import pytest
import run_metrics

# As in devices_test.py, the run must not amplify rounding errors.
OVERRIDES = (
  "--config.langevin.temperature=1.0",
  "--config.langevin.step_size_y=0.1",
  "--config.generator.learning_rate=1e-5",
  "--config.train.num_steps=20",
  "--config.train.image_every=20",
  "--config.train.checkpoint_every=10",
)


def start_two(path, *flags):
  return child.start_two(path, *OVERRIDES, *flags)


def samples(path):
  with np.load(path / "samples" / "00000020_raw.npz") as file:
    return file["images"]


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
  child.finish_all(start_two(tmp_path / "two"))
  child.finish(child.start(tmp_path / "one", *OVERRIDES, num_devices=4))
  two, one = tmp_path / "two", tmp_path / "one"
  run_metrics.assert_same(two, one, num_steps=20, rtol=1e-3, atol=1e-5)
  difference = np.abs(np.int16(samples(two)) - np.int16(samples(one)))
  assert difference.shape == (12, 16, 16, 1) and difference.max() <= 1


@pytest.mark.slow
def test_pmap_is_refused_in_a_run_of_several_processes(tmp_path):
  for process in start_two(tmp_path, "--config.sharding.chains=pmap"):
    output = child.finish(process, 1)
    assert "error: config.sharding.chains='pmap'" in output
