"""Every field of every config, with values that it may not have."""

import copy
import importlib
import json
import re

import child
import ml_collections
import numpy as np
import pytest
import tiny

from hatebm_jax import config as config_lib
from hatebm_jax import data, errors, sample, train
from hatebm_jax.run import workdir

CONFIGS = sorted(p.stem for p in (child.ROOT / "configs").glob("[!_]*.py"))
# Where 0 means something: never, none, or a term that is left out.
ZERO = {
  *("langevin.replay_share", "langevin.replay_from"),
  "seed",
  "train.average_decay",
  "train.checkpoint_minutes",
  "train.profile_at",
  "train.keep_every",
  "train.test_every",
  "divergence.max_energy_gap",
  "divergence.max_clip_rate",
  "divergence.max_drift_z",
  "divergence.max_saturation",
  "data.cache_gib",
  "langevin.step_size_y",
  "langevin.step_size_z",
  "langevin.tau",
  "langevin.init_scale_z",
  "langevin.init_scale_y",
  "hat.learning_rate",
  "hat.data_epsilon",
  "hat.energy_penalty",
  "generator.learning_rate",
  "autoencoder.latent_epsilon",
  "sngan.discriminator_learning_rate",
  "evaluate.step_size_y",
  "evaluate.step_size_z",
  "evaluate.tau",
  "evaluate.init_scale_z",
  "evaluate.init_scale_y",
  "ddls.num_steps",
  "ddls.step_size",
  "chains.num_chains",
  "ood.jpeg_quality",
}
BOOLEAN = {"sample.png", "sharding.split_optimizer"}
# Where text may be any; elsewhere it is one of a few words, or no text at all.
ANY_TEXT = {
  "train.start_from",
  "data.source",
  "data.train_split",
  "data.test_split",
  "data.feature",
  "data.data_dir",
  "data.cache_dir",
  "generator.source",
  "metrics.inception",
  "metrics.statistics",
  "metrics.samples",
}


def load(name):
  return importlib.import_module(f"hatebm_jax.configs.{name}").get_config()


def fields(config):
  """Returns the names of all fields, `group.field`."""
  names = []
  for group, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      names += [f"{group}.{field}" for field in value]
    else:
      names.append(group)
  return names


def place(config, name, value):
  """Sets a field, of whatever type."""
  config = copy.deepcopy(config)
  with config.unlocked(), config.ignore_type():
    group, _, field = name.rpartition(".")
    (config[group] if group else config)[field] = value
  return config


def is_real(config, name):
  group, _, field = name.rpartition(".")
  return (config[group] if group else config).get_type(field) is float


def bad_values(name):
  """What a field may not be, by hand."""
  values = [
    *(float("nan"), float("inf"), -float("inf"), -1, -0.5, 10**30, 1e30),
    *(b"bytes", {"a": 1}, ["", 3], [[1]], object()),
  ]
  if name not in ZERO | BOOLEAN:
    values += [0, 0.0]
  if name in BOOLEAN:
    values += [0, 1, None]
  else:
    values += [True]
  if name not in ANY_TEXT:
    values += ["", "no such word", "1"]
  return values


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configs_are_right(name):
  config_lib.check(load(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_refuses_what_it_may_not_be(name):
  config = load(name)
  names = fields(config)
  assert len(names) == 100
  for field in names:
    for value in bad_values(field):
      if isinstance(value, bool) and is_real(config, field):
        continue  # ml_collections makes it a number.
      try:
        config_lib.check(place(config, field, value))
      except errors.ConfigError as error:
        message = str(error)
      else:
        pytest.fail(f"{field}={value!r} was accepted")
      assert message.startswith(f"config.{field}="), message
      assert "expected " in message
      assert f"Set it with --config.{field}=VALUE" in message


@pytest.mark.parametrize("field", sorted(ZERO))
def test_zero_where_it_means_something(field):
  config_lib.check(place(tiny.config(), field, 0))


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("train.batch_size", 0, "=0: expected an integer from 1 to 1048576"),
    ("train.average_decay", 1.0, "=1.0: expected a number from 0 to less than"),
    ("model.width", 64.0, "=64.0: expected an integer from 1 to 16384"),
    ("data.channels", 2, "=2: expected 1 or 3"),
    ("data.channels", True, "=True: expected 1 or 3"),
    ("model.dtype", "float16", "='float16': expected 'float32' or 'bfloat16'"),
    ("langevin.temperature", 0.0, "=0.0: expected a number above 0"),
    ("hat.learning_rate_drops", ((5, 1e-4), (3, 1e-5)), ".*steps increasing"),
    ("hat.learning_rate_drops", ((5, float("nan")),), ".*steps increasing"),
    ("ood.sets", "tfds:svhn", "='tfds:svhn': expected"),
    ("train.num_steps", "x" * 500, r"='x{79}\.\.\.: expected an integer"),
  ],
)
def test_messages_say_what_is_allowed(field, value, message):
  with pytest.raises(errors.ConfigError, match=f"config.{field}{message}"):
    config_lib.check(place(tiny.config(), field, value))


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("hat.learning_rate_drops", [[5, 1e-4], [6, 0]]),  # As JSON has them.
    ("langevin.step_size_y", 1),
    ("langevin.step_size_y", np.float32(0.5)),
    ("train.num_steps", np.int64(5)),
    ("generator.width", None),
    ("langevin.max_drift_y", None),
    ("sample.checkpoint", 3),
    ("sample.checkpoint", "all"),
    ("ood.sets", ("folder:x",)),
    ("chains.temperatures", (1e-3, 1)),
  ],
)
def test_what_is_as_good(field, value):
  config_lib.check(place(tiny.config(), field, value))


def test_missing_and_unknown_fields():
  config = tiny.config()
  with config.unlocked():
    del config.train.batch_size
  with pytest.raises(errors.ConfigError, match=r"train.batch_size is missing"):
    config_lib.check(config)
  config = place(tiny.config(), "train.batch_sise", 8)
  with pytest.raises(
    errors.ConfigError, match=r"batch_sise is not known: did you mean .*_size\?"
  ):
    config_lib.check(config)
  config = place(tiny.config(), "train", 3)
  with pytest.raises(
    errors.ConfigError, match=r"config.train=3: expected a gr"
  ):
    config_lib.check(config)
  config = place(tiny.config(), "zzz", 3)
  with pytest.raises(errors.ConfigError, match=r"config.zzz is not known"):
    config_lib.check(config)


def test_python_refuses_before_it_writes(tmp_path):
  path = tmp_path / "run"
  config = place(tiny.config(), "train.num_steps", "many")
  with pytest.raises(errors.ConfigError, match=r"config.train.num_steps="):
    train.train(config, path)
  assert not path.exists()
  with pytest.raises(errors.ConfigError, match=r"config.data.crop="):
    data.open_source(place(tiny.config(), "data.crop", "all").data)


def test_a_strangers_run_is_checked_too(tmp_path):
  text = place(tiny.config(), "model.width", -1).to_json()
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(
    workdir.WorkdirError,
    match=r"config.json: config.model.width=-1: expected an integer .* to 16384"
    r"\. Restore it",
  ):
    sample.restore(tiny.config(), tmp_path)


def saved(**overrides):
  """Returns a config as a run's config.json has it."""
  return json.loads(tiny.config(**overrides).to_json())


def test_a_saved_config_comes_back_as_it_was():
  config = tiny.config(hat__learning_rate_drops=((5, 1e-4), (6, 0.0)))
  config.ood.sets = ("folder:x",)
  config.generator.width = 4
  back = config_lib.from_saved(json.loads(config.to_json()))
  assert back.to_dict() == config.to_dict()
  # Fields that may be None keep their types.
  back.lock()
  back.generator.width = None
  with pytest.raises(TypeError):
    back.generator.width = "wide"


def test_a_field_that_an_older_version_did_not_save_gets_its_default():
  fields = saved()
  del fields["chains"], fields["evaluate"]["init_scale_y"], fields["seed"]
  config = config_lib.from_saved(fields)
  config_lib.check(config)
  assert config.chains.num_chains == 128 and config.seed == 0
  assert config.evaluate.init_scale_y == 0.01
  assert config.evaluate.num_steps == 4 and config.model.width == 8


@pytest.mark.parametrize(
  ("group", "name", "value", "message"),
  [
    (
      "train",
      "batch_sise",
      8,
      r"batch_sise is not known: did you .*_size\? If a newer .* install it\.$",
    ),
    (
      None,
      "trian",
      {},
      r"^config.trian is not known: did .*\.train\? If a newer version .*\.$",
    ),
    (None, "data", 3, "^config.data=3: expected a group of fields.$"),
    ("model", "width", "8", r"width='8': expected an integer .* to 16384\.$"),
    (
      "hat",
      "learning_rate_drops",
      [[0, 1.0]],
      r"=\[\[0, 1.0\]\]: expected",
    ),
  ],
)
def test_a_saved_config_that_is_wrong(group, name, value, message):
  fields = saved()
  (fields[group] if group else fields)[name] = value
  with pytest.raises(errors.ConfigError, match=message):
    config_lib.from_saved(fields)


def test_what_may_change_when_a_run_is_resumed():
  kinds = {kind: set() for kind in config_lib.OnResume}
  for name, field in config_lib.fields():
    kinds[field.on_resume].add(name)
  fixed = kinds[config_lib.OnResume.FIXED]
  assert fixed == {
    *("objective", "seed", "train.batch_size"),
    *(f"data.{name}" for name in ("image_size", "channels", "crop")),
    *(f"model.{name}" for name in ("width", "latent_size")),
    "hat.kind",
    *(
      f"generator.{name}"
      for name in ("out_factor", "bank_size", "kind", "width", "norm_epsilon")
    ),
    *("sngan.discriminator_width", "sngan.discriminator_steps"),
  }
  assert kinds[config_lib.OnResume.START] == {
    "generator.source",
    "train.start_from",
  }
  recorded = kinds[config_lib.OnResume.RECORDED]
  assert {name.partition(".")[0] for name in recorded} == {
    *("train", "data", "model", "langevin", "hat", "generator"),
    *("autoencoder", "sngan"),
  }
  assert {"hat.learning_rate", "langevin.temperature"} < recorded
  free = kinds[config_lib.OnResume.FREE]
  assert {"data.source", "data.data_dir", "data.cache_gib"} < free
  assert {"train.num_steps", "sample.weights", "divergence.patience"} < free


def test_what_sampling_and_evaluation_follow():
  groups = {"sample", "evaluate", "ddls", "metrics", "ood", "chains"}
  groups |= {"sharding"}
  followed = {name for name, field in config_lib.fields() if field.in_use}
  for group in groups:
    assert {f"{group}.{x}" for x in config_lib.GROUPS[group]} < followed
  followed = {x for x in followed if x.partition(".")[0] not in groups}
  langevin = {f"langevin.{name}" for name in config_lib.GROUPS["langevin"]}
  assert followed >= {"seed", "data.source", "model.dtype"}
  # Evaluation has its own values of these two.
  assert langevin - followed == {
    "langevin.max_drift_y",
    "langevin.init_scale_y",
    # Only training has a bank.
    "langevin.replay_share",
    "langevin.replay_from",
  }
  assert not {x for x in followed if x.startswith(("train.", "hat."))}


def test_fields_are_read_and_set_by_name():
  config = tiny.config()
  config_lib.put(config, "hat.learning_rate_drops", [[2, 1e-4]])
  config_lib.put(config, "seed", 3)
  assert config.hat.learning_rate_drops == ((2, 1e-4),)
  assert config_lib.get(config, "seed") == 3
  assert config_lib.get(config, "model.width") == 8


def test_every_field_is_described_in_whole_sentences():
  texts = [*config_lib.GROUP_HELP.values()]
  assert list(config_lib.GROUP_HELP) == list(config_lib.GROUPS)
  for group in config_lib.GROUPS.values():
    texts += [field.help for field in group.values()]
  for text in texts:
    assert re.fullmatch(r"[A-Z`].*\.", text) and len(text.split()) > 3, text


def test_the_default_is_allowed_and_unlocked():
  config = config_lib.default()
  config_lib.check(config)
  assert not config.is_locked
  assert config.langevin.max_drift_y == 2.5
  config.langevin.max_drift_y = None


def test_the_objectives_are_the_modules_of_their_folder():
  folder = child.ROOT / "hatebm_jax" / "objectives"
  names = {path.stem for path in folder.glob("[!_]*.py")}
  assert names == {"synthesis", "joint", "autoencoder", "sngan"}
  for name in names:
    config_lib.check(place(tiny.config(), "objective", name))
  for name in ("parts", "__init__", "synthesis.py", "../config"):
    with pytest.raises(
      errors.ConfigError, match="expected 'autoencoder' or 'joint' or"
    ):
      config_lib.check(place(tiny.config(), "objective", name))


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate"])
def test_the_command_refuses_before_data_are_read(tmp_path, mode):
  path = tmp_path / "run"
  process = child.start(
    path,
    f"--mode={mode}",
    "--config.data.source=folder:/not/there",
    "--config.langevin.temperature=nan",
  )
  output = child.finish(process, 1)
  (message,) = [x for x in output.splitlines() if x.startswith("error: ")]
  assert message.startswith("error: config.langevin.temperature=nan: expected")
  assert "Traceback" not in output and not path.exists()
