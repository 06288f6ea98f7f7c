"""A workdir of an older version is resumed, sampled from and evaluated."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from hatebm_jax import evaluation, sample, train
from hatebm_jax.run import logs, npz, workdir

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "workdir_5675db3"
SAMPLES = "samples/00000004_raw.npz"
# These say where and by what the evaluation was made.
PLACES = {"seconds", "hatebm_jax", "jax", "device"}
# A pixel of 8 images of 16x16 may lie on either side of a bound.
ONE_PIXEL = 1 / (8 * 16 * 16)


@pytest.fixture(name="path")
def copy_of_the_fixture(tmp_path):
  return shutil.copytree(FIXTURE, tmp_path / "run")


def read_lines(file):
  return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_it_is_resumed(path):
  """Metrics agree up to the rounding of float32.

  The fixture comes from one device and optimized code. Eight devices and less
  optimization sum in another order, which changes energies of order 1 by about
  1e-7. At T = 1e-8 a Langevin step multiplies the gradient by 12.5, and Adam
  divides small gradients by their own size: both carry rounding from step to
  step. Measured differences are below 1e-6 of each value at all four steps.
  Steps 6 to 8 are given ten times the room of step 5, for other processors.
  """
  config = workdir.read_config(path)
  config.train.num_steps = 8
  assert train.train(config, path) is None
  lines = read_lines(path / workdir.METRICS)
  assert lines[:4] == read_lines(FIXTURE / workdir.METRICS)
  expected = read_lines(FIXTURE / "metrics_5_to_8.jsonl")
  for line, before in zip(lines[4:], expected, strict=True):
    new = {"save_wait_fraction"}  # It came later than the fixture.
    assert line.keys() == before.keys() | new and line["step"] == before["step"]
    rtol = 1e-5 if line["step"] == 5 else 1e-4
    for name in line.keys() - set(logs.TIMES):
      atol = ONE_PIXEL if name == "saturation" else 0.1 * rtol
      np.testing.assert_allclose(
        line[name], before[name], rtol, atol, err_msg=f"{line['step']} {name}"
      )


def test_its_samples_are_drawn_again(path):
  """Pixels may be rounded to the next of the 256 grey levels, no further."""
  config = workdir.read_config(path)
  drawn = sample.draw(sample.restore(config, path))
  expected = npz.arrays(FIXTURE / SAMPLES, ["images", "generator"])
  for found, name in (
    (drawn.samples, "images"),
    (drawn.generated, "generator"),
  ):
    difference = found.astype(int) - expected[name]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


def assert_close(found, expected, name=""):
  """Compares nested JSON; numbers may differ by 0.01 %."""
  if isinstance(expected, dict):
    assert found.keys() >= expected.keys(), name
    for key in expected.keys() - PLACES:
      assert_close(found[key], expected[key], f"{name}/{key}")
  elif isinstance(expected, list):
    assert len(found) == len(expected), name
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
      assert_close(a, b, f"{name}/{i}")
  elif isinstance(expected, float):
    np.testing.assert_allclose(found, expected, 1e-4, 1e-6, err_msg=name)
  else:
    assert found == expected, name


@pytest.mark.slow
def test_it_is_evaluated_again(path):
  """A grey level in a few pixels changes no figure by more than 0.01 %."""
  config = workdir.read_config(path)
  restored = sample.restore(config, path)
  (path / workdir.EVALUATION).unlink()
  evaluation.write(evaluation.evaluate(restored), path)
  found, before = map(workdir.read_evaluation, (path, FIXTURE))
  chains, chains_before = found.pop("chains"), before.pop("chains")
  assert_close(found, before)
  # These chains go on where those of that time ended, after 3 steps.
  assert [x["step"] for x in chains["curve"]] == [0, 1, 2, 3, 4]
  assert_close(chains["curve"][:4], chains_before["curve"])
  for name in ("num_chains", "training_steps", "stuck", "energy_gap"):
    assert_close(chains[name], chains_before[name], name)
