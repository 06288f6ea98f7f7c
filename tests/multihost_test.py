"""Compares two processes of two devices each with one process of four."""

import json

import child
import numpy as np
import pytest

from hatebm_jax.run import logs

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


def results(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  with np.load(path / "samples" / "00000020_raw.npz") as file:
    return [json.loads(line) for line in lines], file["images"]


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
  for process in start_two(tmp_path / "two"):
    child.finish(process)
  child.finish(child.start(tmp_path / "one", *OVERRIDES, num_devices=4))
  two, images_two = results(tmp_path / "two")
  one, images_one = results(tmp_path / "one")
  assert [line["step"] for line in two] == list(range(1, 21))
  for name in one[0].keys() - set(logs.TIMES):
    np.testing.assert_allclose(
      [line[name] for line in two],
      [line[name] for line in one],
      rtol=1e-3,
      atol=1e-5,
      err_msg=name,
    )
  difference = np.abs(np.int16(images_two) - np.int16(images_one))
  assert images_two.shape == (12, 16, 16, 1) and difference.max() <= 1


def test_pmap_is_refused_in_a_run_of_several_processes(tmp_path):
  for process in start_two(tmp_path, "--config.sharding.chains=pmap"):
    output = child.finish(process, 1)
    assert "error: config.sharding.chains='pmap'" in output
