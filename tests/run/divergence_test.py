import json

import chex
import jax
import pytest
import tiny
from train_test import final_state

from hatebm_jax import errors, train
from hatebm_jax.run import checkpoint, divergence, files, workdir


def _settings(**overrides):
  settings = tiny.config().divergence
  settings.update({"patience": 2, "max_saturation": 0.4, **overrides})
  return settings


def test_a_rule_is_broken_by_so_many_logs_in_a_row():
  watch = divergence.Watch(_settings())
  found = [
    watch.update(step, {"saturation": value, "energy_gap": 0.0})
    for step, value in enumerate([0.3, 0.5, 0.4, 0.5, 0.6, 0.7], 1)
  ]
  # Said once, not at every log from there on.
  expected = divergence.Divergence(5, "max_saturation", 0.6)
  assert found == [None, None, None, None, expected, None]
  assert watch.good_step == 3 and not watch.is_well
  watch.update(7, {"saturation": 0.1})
  assert watch.good_step == 7 and watch.is_well


@pytest.mark.parametrize(
  "metric, rule, value",
  [
    ("energy_gap", "max_energy_gap", -101.0),
    ("clip_rate_y", "max_clip_rate", 0.96),
    ("drift_norm_z", "max_drift_z", 5.1),
    ("saturation", "max_saturation", 0.51),
  ],
)
def test_rules_of_the_defaults(metric, rule, value):
  watch = divergence.Watch(tiny.config().divergence)
  within = {metric: value * 0.98}
  assert [watch.update(step, within) for step in range(9)] == [None] * 9
  found = [watch.update(step, {metric: value}) for step in (10, 11, 12)]
  assert found == [None, None, divergence.Divergence(12, rule, value)]
  assert rule in str(found[-1]) and metric in str(found[-1])


def test_a_watch_goes_on_where_the_log_ends():
  lines = [{"step": 1, "saturation": 0.1}, {"step": 2, "saturation": 0.9}]
  watch = divergence.follow(_settings(), lines)
  assert watch.good_step == 1
  assert watch.update(3, {"saturation": 0.9}).rule == "max_saturation"


def test_the_record_grows(tmp_path):
  assert divergence.rollbacks(tmp_path) == []
  first = divergence.Divergence(5, "max_drift_z", 9.0)
  divergence.record(tmp_path, first, to=2)
  divergence.record(tmp_path, divergence.Divergence(7, "not_finite", "x"), to=6)
  found = divergence.rollbacks(tmp_path)
  assert found[0] == {"step": 5, "rule": "max_drift_z", "value": 9.0, "to": 2}
  assert [entry["to"] for entry in found] == [2, 6]
  (tmp_path / divergence.FILE).write_text("[")
  with pytest.raises(files.FileError, match="not valid JSON"):
    divergence.rollbacks(tmp_path)


@pytest.mark.parametrize(
  "content, message",
  [
    ("{}", "expected a JSON list"),
    ("[1]", "of each rollback"),
    ('[{"step": 1, "to": 1}]', "of each rollback"),
    ('[{"step": 1.5, "to": 1, "rule": "x", "value": 1}]', "of each rollback"),
    ('[{"step": 2, "to": 1, "rule": "x", "value": []}]', "of each rollback"),
    ('[{"step": 2, "to": 1, "rule": {}, "value": 1}]', "of each rollback"),
  ],
)
def test_a_record_of_something_else(tmp_path, content, message):
  (tmp_path / divergence.FILE).write_text(content)
  with pytest.raises(errors.UserError, match=message):
    divergence.rollbacks(tmp_path)


def _rolling_back(**overrides):
  return tiny.config(
    train__on_divergence="rollback",
    train__num_steps=6,
    train__checkpoint_every=1,
    divergence__patience=1,
    **overrides,
  )


@pytest.fixture(scope="module")
def bound(tmp_path_factory):
  """An unwatched run, its most saturated step, and a bound just below that."""
  path = tmp_path_factory.mktemp("unwatched")
  train.train(tiny.config(train__num_steps=6), path)
  values = [line["saturation"] for line in workdir.read_metrics(path)]
  worst = max(range(6), key=lambda i: values[i])
  return path, worst + 1, values[worst] * (1 - 1e-4)


@pytest.fixture(scope="module")
def went_back(bound, tmp_path_factory):
  """The same run, watched."""
  path = tmp_path_factory.mktemp("watched")
  config = _rolling_back(divergence__max_saturation=bound[2])
  assert train.train(config, path) is None
  return path


@pytest.mark.slow
def test_goes_back_with_other_random_numbers(bound, went_back):
  unwatched, step, limit = bound
  first = divergence.rollbacks(went_back)[0]
  # Every step has a checkpoint; the good one is that before the bad log.
  assert (first["step"], first["rule"]) == (step, "max_saturation")
  assert first["to"] == step - 1 > 0
  before, after = (
    workdir.read_metrics(unwatched),
    workdir.read_metrics(went_back),
  )
  assert [line["step"] for line in after] == list(range(1, 7))
  for old, new in zip(before, after, strict=True):
    same = old["drift_norm_y"] == new["drift_norm_y"]
    assert same == (old["step"] < step)
  assert all(line["saturation"] <= limit for line in after)


@pytest.mark.slow
def test_a_run_resumed_after_going_back_ends_alike(bound, went_back, tmp_path):
  _, step, limit = bound
  config = _rolling_back(divergence__max_saturation=limit)
  config.train.num_steps = step
  train.train(config, tmp_path)
  assert divergence.rollbacks(tmp_path)
  config.train.num_steps = 6
  train.train(config, tmp_path)
  assert divergence.rollbacks(tmp_path) == divergence.rollbacks(went_back)
  states = [final_state(config, path)[0] for path in (went_back, tmp_path)]
  chex.assert_trees_all_equal(*states)


@pytest.mark.slow
def test_gives_up_after_so_many_rollbacks(tmp_path):
  config = _rolling_back(divergence__max_energy_gap=0.0, train__max_rollbacks=2)
  with pytest.raises(train.TrainingError, match=r"gone back 2 times"):
    train.train(config, tmp_path)
  assert [entry["to"] for entry in divergence.rollbacks(tmp_path)] == [0, 0]
  # The same command does not start to count anew.
  with pytest.raises(train.TrainingError, match=r"gone back 2 times"):
    train.train(config, tmp_path)


@pytest.mark.slow
def test_goes_back_from_what_is_not_finite(tmp_path):
  config = _rolling_back(hat__learning_rate=1e3, train__max_rollbacks=1)
  with pytest.raises(train.TrainingError, match="gone back 1 time"):
    train.train(config, tmp_path)
  (entry,) = divergence.rollbacks(tmp_path)
  assert entry["rule"] == "not_finite" and "is nan" in entry["value"]
  with checkpoint.Checkpoints(tmp_path) as saved:
    assert (saved.latest_step() or 0) <= entry["step"]


def test_warns_once_by_default(tmp_path, capsys):
  config = tiny.config(divergence__max_energy_gap=0.0, divergence__patience=2)
  assert train.train(config, tmp_path) is None
  output = capsys.readouterr().out
  assert output.count("warning: training step 2: energy_gap") == 1
  assert not (tmp_path / divergence.FILE).exists()
  assert json.loads((tmp_path / "config.json").read_text())["divergence"]


def test_another_key_after_every_rollback():
  config = tiny.config()
  keys = {
    tuple(jax.random.key_data(train._training_rng(config, n)).tolist())
    for n in range(4)
  }
  assert len(keys) == 4
