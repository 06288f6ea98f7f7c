"""Two processes evaluate, roll back and use a release as one process does."""

import json
import os
import shutil
import subprocess
import sys

import child
import numpy as np
import pytest
import run_metrics

from hatebm_jax.run import checkpoint, divergence

# As in multihost_test.py, the run must not amplify rounding errors.
RUN = (
  "--config.langevin.temperature=1.0",
  "--config.langevin.step_size_y=0.1",
  "--config.generator.learning_rate=1e-5",
  "--config.train.image_every=100",
  "--config.chains.num_chains=8",
)
EVALUATE = ("--mode=evaluate", "--config.chains.num_chains=8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of two processes: 4 training steps, samples and an evaluation."""
  path = tmp_path_factory.mktemp("two")
  child.finish_all(child.start_two(path, *RUN))
  return path


@pytest.fixture(scope="module")
def released(trained, tmp_path_factory):
  """The release of the run."""
  out = tmp_path_factory.mktemp("release") / "release"
  command = (sys.executable, "-m", "hatebm_jax.convert", "release")
  subprocess.run(
    [*command, str(trained), f"--out={out}"],
    cwd=child.ROOT,
    env={**os.environ, "PYTHONPATH": str(child.ROOT)},
    check=True,
  )
  return out


def figures(path):
  found = json.loads((path / "evaluation.json").read_text())
  assert "failed" not in found
  del found["seconds"]
  return found


def assert_same_figures(one, two):
  """Compares two contents of evaluation.json, numbers to 1e-4 of them."""
  assert type(one) is type(two)
  if isinstance(one, dict):
    assert one.keys() == two.keys()
    for name in one:
      assert_same_figures(one[name], two[name])
  elif isinstance(one, list):
    assert len(one) == len(two)
    for pair in zip(one, two, strict=True):
      assert_same_figures(*pair)
  elif isinstance(one, float):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
  else:
    assert one == two


@pytest.mark.slow
def test_two_processes_find_the_figures_of_one(trained, tmp_path):
  flags = *EVALUATE, f"--out={tmp_path}"
  child.finish(child.start(trained, *flags, num_devices=4))
  assert_same_figures(figures(tmp_path), figures(trained))


@pytest.mark.slow
def test_a_release_in_two_processes_is_that_in_one(trained, released, tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  child.finish_all(child.start_two(released, *EVALUATE, f"--out={two}"))
  child.finish(child.start(released, *EVALUATE, f"--out={one}", num_devices=4))
  assert_same_figures(figures(one), figures(two))
  child.finish_all(child.start_two(released, "--mode=sample", f"--out={two}"))
  samples = "samples/00000004_raw.npz"
  with np.load(trained / samples) as run, np.load(two / samples) as release:
    np.testing.assert_array_equal(run["images"], release["images"])
    np.testing.assert_array_equal(run["generator"], release["generator"])


@pytest.mark.slow
def test_two_processes_go_back_from_what_is_not_finite(trained, tmp_path):
  diverging = (
    *("--config.train.num_steps=50", "--config.train.checkpoint_every=100"),
    # The energies overflow at the second step, before another rule is broken.
    *("--config.hat.learning_rate=1e3", "--config.langevin.step_size_y=1e3"),
    *(
      "--config.train.on_divergence=rollback",
      "--config.train.max_rollbacks=1",
    ),
  )
  two, one = tmp_path / "two", tmp_path / "one"
  shutil.copytree(trained, two)
  for process in child.start_two(two, *RUN, *diverging):
    output = child.finish(process, 1)
    assert "gone back 1 times" in output and "Traceback" not in output
  (entry,) = divergence.rollbacks(two)
  assert entry["rule"] == "not_finite" and entry["to"] == 4 < entry["step"]
  with checkpoint.Checkpoints(two, read_only=True) as saved:
    assert saved.latest_step() == 4

  shutil.copytree(two, one)
  mended = *RUN, "--config.train.num_steps=8", "--config.chains.num_chains=0"
  child.finish_all(child.start_two(two, *mended))
  child.finish(child.start(one, *mended, num_devices=4))
  run_metrics.assert_same(two, one, num_steps=8, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_paper_preset_fails_at_once_on_both(tmp_path):
  flag = "--config.metrics.protocol=paper"
  for process in child.start_two(tmp_path / "run", flag):
    output = child.finish(process, 1)
    assert "error: config.metrics.protocol='paper'" in output
    assert "config.metrics.inception=FILE" in output
  assert not (tmp_path / "run").exists()
