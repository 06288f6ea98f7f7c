import json

import pytest
import tiny

from hatebm_jax import config as config_lib
from hatebm_jax import errors
from hatebm_jax.run import changes, files, workdir


def test_claim_writes_the_config_and_reads_it_back(tmp_path):
  config = tiny.config()
  workdir.claim(tmp_path, config, write=True)
  assert workdir.read_config(tmp_path).model.width == 8
  workdir.claim(tmp_path, config, write=True)


def claim_trained(path, config):
  """Makes a workdir whose run has a checkpoint."""
  workdir.claim(path, config, write=True)
  (path / "checkpoints" / "4").mkdir(parents=True)


def test_another_config_is_refused_by_its_first_difference(tmp_path):
  claim_trained(tmp_path, tiny.config())
  with pytest.raises(
    workdir.WorkdirError, match=r"config\.model\.width=8, the command says 16"
  ):
    workdir.claim(tmp_path, tiny.config(model__width=16), write=True)
  assert workdir.read_config(tmp_path).model.width == 8


@pytest.mark.parametrize("folder", ["checkpoints/2", "broken_checkpoints/2.0"])
def test_a_run_with_any_checkpoint_keeps_its_workdir(tmp_path, folder):
  workdir.claim(tmp_path, tiny.config(), write=True)
  (tmp_path / folder).mkdir(parents=True)
  with pytest.raises(workdir.WorkdirError, match=r"bank_size=24.*says 32"):
    workdir.claim(tmp_path, tiny.config(generator__bank_size=32), write=True)


def test_a_first_try_without_a_checkpoint_is_replaced(tmp_path, capsys):
  workdir.claim(tmp_path, tiny.config(), write=True)
  (tmp_path / "images").mkdir()
  (tmp_path / "checkpoints").mkdir()
  written = [
    *("metrics.jsonl", "rollbacks.json", "nonfinite.json"),
    *("images/00000002_hat.png", "events.out.tfevents.1.host"),
  ]
  others = ["notes.txt", "images/cat.png", "metrics.jsonl.old", "lock.json"]
  for name in written + others:
    (tmp_path / name).write_text("")
  workdir.claim(tmp_path, tiny.config(train__num_steps=9), write=True)
  assert (tmp_path / "metrics.jsonl").exists()
  assert not capsys.readouterr().out
  workdir.claim(tmp_path, tiny.config(model__width=16), write=True)
  assert "config.model.width=8, the command says 16" in capsys.readouterr().out
  assert workdir.read_config(tmp_path).model.width == 16
  assert not any((tmp_path / name).exists() for name in written)
  assert all((tmp_path / name).exists() for name in others)


def test_another_json_in_the_folder_is_not_replaced(tmp_path):
  (tmp_path / "config.json").write_text('{"compilerOptions": {}}')
  (tmp_path / "metrics.jsonl").write_text("mine")
  with pytest.raises(
    workdir.WorkdirError, match="compilerOptions is not known"
  ):
    workdir.claim(tmp_path, tiny.config(), write=True)
  assert (tmp_path / "metrics.jsonl").read_text() == "mine"


def test_cadence_and_sampling_may_change(tmp_path):
  claim_trained(tmp_path, tiny.config())
  config = tiny.config(train__num_steps=99, evaluate__num_steps=7)
  workdir.claim(tmp_path, config, write=True)
  workdir.resume(tmp_path, config, 4)
  merged = workdir.run_config(tmp_path, tiny.config(sample__num_images=3))
  assert merged.train.num_steps == 99
  assert merged.sample.num_images == 3 and merged.evaluate.num_steps == 4
  assert changes.read(tmp_path) == []


def test_changes_are_recorded_and_said(tmp_path, capsys):
  claim_trained(tmp_path, tiny.config(hat__data_epsilon=0.01))
  config = tiny.config(
    hat__data_epsilon=0.03, langevin__max_drift_y=None, data__cache_gib=1.0
  )
  workdir.claim(tmp_path, config, write=True)
  assert workdir.read_config(tmp_path).hat.data_epsilon == 0.01
  workdir.resume(tmp_path, config, 4)
  said = "config.hat.data_epsilon: 0.01 -> 0.03 from training step 4 on\n"
  assert said in capsys.readouterr().out
  drift = tiny.config().langevin.max_drift_y
  expected = [
    {"step": 4, "field": "langevin.max_drift_y", "from": drift, "to": None},
    {"step": 4, "field": "hat.data_epsilon", "from": 0.01, "to": 0.03},
  ]
  assert changes.read(tmp_path) == expected
  current = workdir.read_config(tmp_path)
  assert current.hat.data_epsilon == 0.03 and current.data.cache_gib == 1.0
  # The same command again changes nothing and says nothing.
  workdir.resume(tmp_path, config, 6)
  assert changes.read(tmp_path) == expected
  assert not capsys.readouterr().out


def test_a_change_moves_back_with_the_run(tmp_path):
  claim_trained(tmp_path, tiny.config(hat__learning_rate=4e-3))
  for step, rate in ((4, 3e-3), (8, 2e-3), (9, 1e-3)):
    config = tiny.config(hat__learning_rate=rate)
    workdir.resume(tmp_path, config, step)
  # The checkpoints after step 6 are lost, and training goes on from there.
  workdir.resume(tmp_path, config, 6)
  assert [(x["step"], x["from"], x["to"]) for x in changes.read(tmp_path)] == [
    (4, 4e-3, 3e-3),
    (6, 3e-3, 1e-3),
  ]
  workdir.resume(tmp_path, tiny.config(hat__learning_rate=3e-3), 6)
  assert [x["step"] for x in changes.read(tmp_path)] == [4]
  # Training begins anew.
  workdir.resume(tmp_path, tiny.config(hat__learning_rate=3e-3), 0)
  assert changes.read(tmp_path) == []


def test_an_older_checkpoint_has_the_values_that_trained_it(tmp_path):
  claim_trained(tmp_path, tiny.config(langevin__temperature=0.5))
  workdir.resume(tmp_path, tiny.config(langevin__temperature=0.25), 2)
  workdir.resume(tmp_path, tiny.config(langevin__temperature=0.125), 4)
  for step, temperature in ((2, 0.5), (3, 0.25), (4, 0.25), (5, 0.125)):
    merged = workdir.run_config(tmp_path, tiny.config(), step=step)
    assert merged.langevin.temperature == temperature


def test_the_source_of_the_generator_is_that_of_the_start(tmp_path):
  config = tiny.config("digits_refine", generator__source="/runs/sngan")
  claim_trained(tmp_path, config)
  config.generator.source = "/moved/sngan"
  workdir.claim(tmp_path, config, write=True)
  workdir.resume(tmp_path, config, 4)
  assert workdir.read_config(tmp_path).generator.source == "/runs/sngan"


def test_fields_that_the_command_line_names_are_followed(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  config = tiny.config(
    langevin__temperature=0.5, data__source="folder:/x", train__batch_size=8
  )
  config.seed = 7
  given = {"seed", "langevin.temperature", "train.batch_size"}
  merged = workdir.run_config(tmp_path, config, given)
  assert merged.seed == 7 and merged.langevin.temperature == 0.5
  # A file that --config names says nothing about the run.
  assert merged.data.source == "digits"
  merged = workdir.run_config(tmp_path, config, {"data.source"})
  assert merged.data.source == "folder:/x" and merged.seed == 0


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("model.width", 16),
    ("train.batch_size", 16),
    ("hat.learning_rate", 1.0),
    ("langevin.max_drift_y", None),
    ("train.average_decay", 0.5),
  ],
)
def test_fields_without_effect_are_refused(tmp_path, name, value):
  workdir.claim(tmp_path, tiny.config(), write=True)
  config = tiny.config()
  config_lib.put(config, name, value)
  with pytest.raises(
    errors.ConfigError,
    match=rf"config\.{name}={value}: the run in .* has .* follow config\.seed, "
    r"config\.data\.source, .*config\.sample.* and config\.chains\.$",
  ):
    workdir.run_config(tmp_path, config, {name})
  workdir.run_config(tmp_path, tiny.config(), {name})


def test_fields_of_the_training_command_alone_are_named(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  given = {"train.num_steps", "divergence.patience", "seed", "model.width"}
  config = tiny.config(train__num_steps=999)
  merged = workdir.run_config(tmp_path, config, given)
  assert merged.train.num_steps == tiny.config().train.num_steps
  line = workdir.ignored(given)
  assert line == (
    "Only training follows config.train.num_steps, config.divergence.patience."
  )
  assert workdir.ignored({"seed", "model.width"}) == ""


@pytest.mark.parametrize(
  "content",
  [
    "{}",
    '[{"step": 1}]',
    '[{"step": 0, "field": "hat.learning_rate", "from": 1, "to": 2}]',
    '[{"step": 1, "field": "hat.learning_rate", "from": "1", "to": 2}]',
    '[{"step": 1, "field": "model.width", "from": 8, "to": 16}]',
    '[{"step": 1, "field": "hat.__class__", "from": 8, "to": 16}]',
    '[{"step": 1, "field": ["seed"], "from": 8, "to": 16}]',
    "[3]",
  ],
)
def test_changes_of_a_stranger(tmp_path, content):
  (tmp_path / changes.FILE).write_text(content)
  with pytest.raises(files.FileError, match=r"config_changes\.json: expected"):
    changes.read(tmp_path)


def test_missing_and_broken_config(tmp_path):
  with pytest.raises(workdir.WorkdirError, match="holds no run"):
    workdir.read_config(tmp_path)
  (tmp_path / "config.json").write_text('{"seed": ')
  with pytest.raises(files.FileError, match="not valid JSON"):
    workdir.read_config(tmp_path)


@pytest.mark.parametrize(
  "content, message",
  [
    (b'"\xff"', "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"),
    (b"9" * 5000, "not valid JSON"),
    (b"[]", "expected a JSON object, found a list"),
    (b"null", "expected a JSON object, found a NoneType"),
    (b'{"a.b": 1}', r"config\.a\.b is not known"),
    (b'{"__class__": 1}', r"config\.__class__ is not known"),
    (b'{"\\ud800": 1}', r"config\.'\\ud800' is not known"),
    (b'{"train": {"__class__": 1}}', r"config\.train\.__class__ is not known"),
    (b'{"train": {"seed": {"b": 1}}}', r"config\.train\.seed is not known"),
    (b'{"seed": {"b": 1}}', r"config\.seed={'b': 1}: expected an integer"),
    (b'{"ood": {"sets": [[1]]}}', r"config\.ood\.sets=\[\[1\]\]: expected"),
    (b'{"train": [[[1]]]}', r"config\.train=\[\[\[1\]\]\]: expected a group"),
    (b'{"sample": "x"}', r"config\.sample='x': expected a group"),
    (b'{"seed": NaN}', r"config\.seed=nan: expected an integer"),
  ],
)
def test_config_of_a_stranger(tmp_path, content, message):
  (tmp_path / "config.json").write_bytes(content)
  with pytest.raises(errors.UserError, match=message):
    workdir.run_config(tmp_path, tiny.config())


def test_a_run_of_an_older_version_gets_defaults(tmp_path):
  saved = json.loads(tiny.config().to_json())
  del saved["chains"], saved["train"]["steps_per_dispatch"], saved["seed"]
  (tmp_path / "config.json").write_text(json.dumps(saved))
  config = tiny.config(sample__num_images=3)
  merged = workdir.run_config(tmp_path, config)
  assert merged.sample.num_images == 3
  assert merged.train.steps_per_dispatch == 1 and merged.seed == 0
  assert merged.chains.num_chains == 32
  workdir.claim(tmp_path, config, write=True)
  complete = json.loads((tmp_path / "config.json").read_text())
  assert complete["train"]["steps_per_dispatch"] == 1


def test_lists_of_a_file_are_tuples_of_the_config(tmp_path):
  config = tiny.config(hat__learning_rate_drops=((2, 1e-4), (3, 1e-5)))
  workdir.claim(tmp_path, config, write=True)
  read = workdir.read_config(tmp_path)
  assert read.hat.learning_rate_drops == ((2, 1e-4), (3, 1e-5))
  workdir.claim(tmp_path, config, write=True)


def test_what_no_run_logs_is_left_out(tmp_path):
  good = [{"step": 1, "x": -0.5}, {"step": 2, "x": 3e38}, {"step": 9}]
  bad = [
    "",
    "[" * 100_000,
    "7",
    "[1]",
    '{"x": 1.0}',
    '{"step": "1"}',
    '{"step": 1.0}',
    '{"step": true}',
    '{"step": -1}',
    f'{{"step": 1{"0" * 99}}}',
    '{"step": 1, "x": "2"}',
    '{"step": 1, "x": null}',
    '{"step": 1, "x": [2]}',
    '{"step": 1, "x": 1e300}',
    f'{{"step": 1, "x": 1{"0" * 4000}}}',
    '{"step": 3, "x"',
  ]
  lines = [*map(json.dumps, good[:2]), *bad, json.dumps(good[2])]
  content = "\n".join(lines).encode() + b'\n{"step": "\xff"}\n'
  (tmp_path / workdir.METRICS).write_bytes(content)
  assert workdir.read_metrics(tmp_path) == good
  assert workdir.read_metrics(tmp_path, last_step=2) == good[:2]


def test_not_a_number_is_a_number(tmp_path):
  (tmp_path / workdir.METRICS).write_text(
    '{"step": 1, "x": NaN}\n{"step": 2, "x": -Infinity}\n'
  )
  assert [x["step"] for x in workdir.read_metrics(tmp_path)] == [1, 2]


def test_evaluation_is_an_object(tmp_path):
  assert workdir.read_evaluation(tmp_path) is None
  (tmp_path / workdir.EVALUATION).write_text("[]")
  with pytest.raises(files.FileError, match="expected a JSON object"):
    workdir.read_evaluation(tmp_path)
