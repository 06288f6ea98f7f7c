"""Two processes evaluate a run as one process does."""

import json

import child
import numpy as np
import pytest

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
  for process in child.start_two(path, *RUN):
    child.finish(process)
  return path


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


def test_the_paper_preset_fails_at_once_on_both(tmp_path):
  flag = "--config.metrics.protocol=paper"
  for process in child.start_two(tmp_path / "run", flag):
    output = child.finish(process, 1)
    assert "error: config.metrics.protocol='paper'" in output
    assert "config.metrics.inception=FILE" in output
  assert not (tmp_path / "run").exists()
