"""Checks the loop: exact resume, stopping, divergence and what it writes."""

import itertools
import json
import shutil

import chex
import child
import jax
import numpy as np
import pytest
import tiny

from hatebm_jax import errors, feed, objectives, restore, sharding, train
from hatebm_jax.run import checkpoint, logs, workdir


def final_state(config, path):
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(config, objective, mesh, saved)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  assert train.train(tiny.config(), path) is None
  return path


def test_a_run_leaves_what_the_readme_says(uninterrupted):
  lines = (uninterrupted / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
  pictures = {path.name for path in (uninterrupted / "images").iterdir()}
  assert pictures == {
    f"{step:08d}_{name}.png"
    for step in (2, 4)
    for name in ("data", "generator", "hat", "bank")
  }
  assert (uninterrupted / "config.json").exists()
  assert list(uninterrupted.glob("events.out.tfevents.*"))


def test_resume_is_exact(uninterrupted, tmp_path):
  assert train.train(tiny.config(train__num_steps=3), tmp_path) is None
  assert train.train(tiny.config(), tmp_path) is None
  whole, step_whole = final_state(tiny.config(), uninterrupted)
  parts, step_parts = final_state(tiny.config(), tmp_path)
  assert step_whole == step_parts == 4
  chex.assert_trees_all_equal(whole, parts)
  # Everything except times is logged with the same values.
  for a, b in zip(
    (uninterrupted / "metrics.jsonl").read_text().splitlines(),
    (tmp_path / "metrics.jsonl").read_text().splitlines(),
    strict=True,
  ):
    a, b = json.loads(a), json.loads(b)
    for name in ("step", "hat_loss", "generator_loss", "drift_norm_y"):
      assert a[name] == b[name]


@pytest.mark.slow
def test_a_line_of_the_log_outlives_a_kill_between_two_lines(tmp_path):
  config = tiny.config(train__num_steps=6, train__log_every=3)
  train.train(config, tmp_path)
  whole = workdir.read_metrics(tmp_path)
  # This state is that of a run killed while it saved step 6. The second line is
  # a mean of three steps, and the checkpoint of step 4 has one of them.
  shutil.rmtree(tmp_path / "checkpoints" / "6")
  train.train(config, tmp_path)
  lines = workdir.read_metrics(tmp_path)
  for line, name in itertools.product((*whole, *lines), logs.TIMES):
    del line[name]
  assert [line["step"] for line in lines] == [3, 6] and lines == whole


def test_steps_are_grouped_into_dispatches():
  groups = feed.dispatch_groups(first_step=3, num_steps=10, size=4)
  assert [list(steps) for steps in groups] == [[4], [5, 6, 7, 8], [9, 10]]
  assert list(feed.dispatch_groups(10, 10, 4)) == []


@pytest.mark.slow
def test_several_steps_a_dispatch_are_the_same_steps(uninterrupted, tmp_path):
  config = tiny.config(train__steps_per_dispatch=2, train__log_every=2)
  assert train.train(config, tmp_path) is None
  expected = (uninterrupted / "metrics.jsonl").read_text().splitlines()
  expected = [json.loads(line) for line in expected]
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  assert [line["step"] for line in lines] == [2, 4]
  for name in ("energy_data", "energy_sample", "drift_norm_y", "saturation"):
    mean = (expected[0][name] + expected[1][name]) / 2
    np.testing.assert_allclose(lines[0][name], mean, rtol=1e-3)
  state, _ = final_state(config, tmp_path)
  whole, _ = final_state(tiny.config(), uninterrupted)
  # Latents depend on the streams of random numbers only. The compiler may
  # round them in another way in a loop of training steps.
  np.testing.assert_allclose(state.bank.z, whole.bank.z, rtol=1e-6)


def test_what_falls_due_within_a_dispatch_is_refused(tmp_path):
  config = tiny.config(train__steps_per_dispatch=2)
  with pytest.raises(errors.ConfigError, match=r"log_every=1.*multiple"):
    train.train(config, tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_checkpoints_are_also_due_by_time(tmp_path):
  config = tiny.config(
    train__checkpoint_every=1_000,
    train__checkpoint_minutes=0.0,
    train__keep_checkpoints=2,
  )
  train.train(config, tmp_path)
  kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert kept == {"3", "4"}


@pytest.mark.slow
def test_a_profile_is_written_when_asked_for(tmp_path):
  # The run ends within the profile.
  train.train(tiny.config(train__profile_at=3), tmp_path)
  assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_a_run_imports_no_tensorflow_before_its_first_line(tmp_path):
  # A TensorFlow that ends the process stands first in the path.
  (tmp_path / "tensorflow.py").write_text("import os; os._exit(7)")
  code = f"""
import os, sys
from hatebm_jax import main, restore

def stop(*args, **kwargs):
  kwargs.get("tell", args[-1])(0)
  heavy = ("tensorflow", "sklearn", "scipy.stats", "matplotlib", "arviz_stats")
  print([name for name in heavy if name in sys.modules], flush=True)
  os._exit(0)

restore.restore_or_init = stop
sys.argv[1:] = ["--config=digits", "--workdir={tmp_path}/run"]
main.run()
"""
  first, found = child.python(code, tmp_path).splitlines()
  assert first.startswith("Training: synthesis on digits train (1437 images)")
  assert first.endswith("The first step compiles.") and found == "[]"


def test_a_profile_beyond_the_last_step_is_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"profile_at=5: expected"):
    train.train(tiny.config(train__profile_at=5), tmp_path)
  assert not list(tmp_path.iterdir())


def test_another_config_does_not_touch_the_run(uninterrupted):
  with pytest.raises(workdir.WorkdirError, match=r"config\.seed"):
    config = tiny.config()
    config.seed = 1
    train.train(config, uninterrupted)


@pytest.mark.slow
def test_divergence_ends_the_run_and_names_the_last_checkpoint(
  uninterrupted, tmp_path
):
  # This learning rate sends the energies to infinity within a few steps.
  config = tiny.config(hat__learning_rate=1e3, train__checkpoint_every=1)
  with pytest.raises(
    train.TrainingError, match=r"at training step [2-4]"
  ) as error:
    train.train(config, tmp_path)
  with checkpoint.Checkpoints(tmp_path) as saved:
    step = saved.latest_step()
    assert str(saved.path / str(step)) in str(error.value)
  state, _ = final_state(config, tmp_path)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.bank))


def test_an_expected_error_is_one_line(tmp_path):
  output = child.finish(child.start(tmp_path, "--mode=sample"), 1)
  assert output.strip().splitlines()[-1].startswith("error: ")
  assert "Traceback" not in output and "holds no run" in output
