import json

import pytest
import tiny

from hatebm_jax import errors
from hatebm_jax.run import files, workdir


def test_claim_writes_the_config_and_reads_it_back(tmp_path):
  config = tiny.config()
  workdir.claim(tmp_path, config, write=True)
  assert workdir.read_config(tmp_path).model.width == 8
  workdir.claim(tmp_path, config, write=True)


def test_another_config_is_refused_by_its_first_difference(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  with pytest.raises(
    workdir.WorkdirError, match=r"config\.model\.width=8, the command says 16"
  ):
    workdir.claim(tmp_path, tiny.config(model__width=16), write=True)


def test_cadence_and_sampling_may_change(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  config = tiny.config(train__num_steps=99, evaluate__num_steps=7)
  workdir.claim(tmp_path, config, write=True)
  merged = workdir.run_config(tmp_path, tiny.config(sample__num_images=3))
  assert merged.train.num_steps == 99
  assert merged.sample.num_images == 3 and merged.evaluate.num_steps == 4


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
