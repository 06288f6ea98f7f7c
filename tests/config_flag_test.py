"""--config as a name, as a path, or left out; in all commands."""

import json
import os
import pathlib
import re
import subprocess
import sys

import child
import pytest
import tiny

from hatebm_jax import config_flag, errors
from hatebm_jax.run import workdir

CONFIGS = child.ROOT / "configs"


def refused(*arguments, default=None):
  with pytest.raises(errors.UserError) as caught:
    config_flag.arguments(arguments, default)
  return str(caught.value)


@pytest.fixture
def run(tmp_path):
  """Returns the workdir of a run that has not trained yet."""
  workdir.claim(tmp_path / "run", tiny.config(), write=True)
  return tmp_path / "run"


def test_names_are_those_of_the_files():
  files = {path.stem for path in CONFIGS.iterdir() if path.suffix == ".py"}
  assert set(config_flag.names()) == files - {"__init__"}
  assert "digits" in config_flag.names()


@pytest.mark.parametrize("name", config_flag.names())
def test_a_name_is_the_file_of_an_installed_config(name):
  assert pathlib.Path(config_flag.find(name)).samefile(CONFIGS / f"{name}.py")


def test_a_path_is_left_as_it_is(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("mine.py", "mine", "digits"):
    (tmp_path / name).write_text("")
  for path in ("mine.py", "./mine.py", "mine", "mine.py:7", f"{tmp_path}/mine"):
    assert config_flag.find(path) == path
  # A name is a name, whatever lies in the folder.
  assert config_flag.find("digits") != "digits"
  assert config_flag.find("./digits") == "./digits"


@pytest.mark.parametrize(
  "given",
  [
    ["--config=digits", "--x=1"],
    ["--config", "digits", "--x=1"],
    ["-config=digits", "--x=1"],
    ["-config", "digits", "--x=1"],
  ],
)
def test_how_a_flag_is_written(given):
  path = config_flag.find("digits")
  assert config_flag.arguments(given) == [f"--config={path}", "--x=1"]


def test_overrides_stay_behind_the_config():
  given = ["--workdir=a", "--config=digits", "--config.seed=3", "--noconfig.x"]
  path = config_flag.find("digits")
  assert config_flag.arguments(given) == [
    *("--workdir=a", f"--config={path}", "--config.seed=3", "--noconfig.x")
  ]


def test_a_flagfile_is_read(tmp_path):
  file = tmp_path / "flags"
  file.write_text("--config=digits\n--config.seed=3\n")
  assert config_flag.arguments([f"--flagfile={file}", "--x=1"]) == [
    *(f"--config={config_flag.find('digits')}", "--config.seed=3", "--x=1")
  ]


@pytest.mark.parametrize(
  ("value", "question"),
  [
    ("digist", " Did you mean digits?"),
    ("configs/digist.py", " Did you mean digits?"),
    ("celeba64_refin", " Did you mean celeba64_refine?"),
    ("zzz", ""),
    ("", ""),
    (".", ""),
    ("__init__", ""),
  ],
)
def test_an_unknown_name_is_one_message_with_all_names(value, question):
  names = ", ".join(config_flag.names())
  assert refused(f"--config={value}") == (
    f"--config={value} is neither a file nor the name of a config.{question} "
    f"The names are {names}."
  )


@pytest.mark.parametrize("joined", [True, False])
def test_the_config_of_the_workdir(run, joined):
  given = [f"--workdir={run}"] if joined else ["--workdir", str(run)]
  first, *rest = config_flag.arguments([*given, "--config.seed=3"])
  assert rest == [f"--workdir={run}", "--config.seed=3"]
  path, _, argument = first.removeprefix("--config=").partition(":")
  assert pathlib.Path(path).samefile(config_flag.__file__)
  config = config_flag.get_config(argument)
  assert config.to_dict() == tiny.config().to_dict()


def test_no_config_anywhere(tmp_path):
  names = ", ".join(config_flag.names())
  message = refused(f"--workdir={tmp_path}")
  assert message.startswith(f"--config is missing, and {tmp_path} holds no run")
  assert message.endswith(f"The names are {names}.")
  message = refused("--config.seed=3")
  assert message.startswith("--config is missing. Give the name of a config")
  assert message.endswith(f"The names are {names}.")


def test_a_workdir_with_a_broken_config(run):
  (run / "config.json").write_text('{"seed": ')
  assert "is not valid JSON" in refused(f"--workdir={run}")
  saved = json.loads(tiny.config().to_json())
  saved["model"]["width"] = -1
  (run / "config.json").write_text(json.dumps(saved))
  assert "config.model.width=-1: expected" in refused(f"--workdir={run}")


def test_default():
  path = config_flag.find("cifar10")
  assert config_flag.arguments([], "cifar10") == [f"--config={path}"]
  given = config_flag.arguments(["--config=digits"], "cifar10")
  assert given == [f"--config={config_flag.find('digits')}"]


def test_help_needs_no_config():
  for argument in ("--help", "-help", "--helpfull", "--helpshort=true"):
    assert config_flag.arguments([argument]) == [argument]


def test_label():
  assert config_flag.label(config_flag.find("digits")) == "digits"
  assert config_flag.label("configs/digits.py") == "configs/digits.py"
  assert config_flag.label("/elsewhere/digits.py") == "/elsewhere/digits.py"


def command(folder, module, *arguments):
  """Runs a command in a folder; returns its status and what it printed."""
  result = subprocess.run(
    [sys.executable, "-m", f"hatebm_jax.{module}", *arguments],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(child.ROOT)},
    capture_output=True,
    text=True,
  )
  return result.returncode, result.stdout, result.stderr


def test_a_run_without_a_config(run, tmp_path):
  # The run is found and its config is used; it only lacks a checkpoint.
  status, output, error = command(
    *(tmp_path, "main", "--mode=sample", "--workdir=run"),
    "--config.sample.weights=averaged",
  )
  assert status == 1 and not output
  (message,) = [x for x in error.splitlines() if x.startswith("error: ")]
  assert f"{run}/checkpoints holds no checkpoint" in message
  status, _, error = command(
    *(tmp_path, "main", "--mode=sample", "--workdir=run"),
    "--config.sample.weights=some",
  )
  assert status == 1
  assert "config.sample.weights='some': expected 'raw' or 'averaged'" in error


@pytest.mark.parametrize("module", ["main", "aot", "benchmark"])
def test_one_message_and_no_traceback(tmp_path, module):
  status, output, error = command(tmp_path, module, "--config=digist")
  assert status == 1 and not output
  (message,) = error.splitlines()
  assert message.startswith("error: --config=digist is neither a file nor")


def test_no_config_is_one_message(tmp_path):
  status, output, error = command(
    tmp_path, "main", "--mode=sample", "--workdir=run"
  )
  assert status == 1 and not output
  (message,) = error.splitlines()
  assert message.startswith("error: --config is missing, and run holds no run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("field", "expected"),
  [
    ("trian.x", "has no field 'trian'. Did you mean \"train\""),
    ("train.steps", "has no field 'steps'. --help lists"),
    ("hat.learning_rat", 'Did you mean "learning_rate"'),
  ],
)
def test_a_field_that_is_not_there_names_the_nearest(tmp_path, field, expected):
  arguments = "--config=digits", f"--config.{field}=1"
  status, output, error = command(tmp_path, "main", *arguments, "--workdir=r")
  assert status == 1 and not output
  (message,) = error.splitlines()
  assert message.startswith("error: ") and expected in message
  with pytest.raises(errors.ConfigError, match=re.escape(expected)):
    config_flag.load(arguments)


def test_every_field_that_may_be_none_can_be_set_to_none(tmp_path):
  # First to a number, as a config or a run may have it.
  code = f"""
import json, sys
from absl import flags
from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors

flag = config_flag.define("")
names = {{optional: [] for optional in (False, True)}}
for group, fields in config_lib.GROUPS.items():
  for name, field in fields.items():
    if field.rule.kind in (int, float):
      names[field.rule.optional].append(f"{{group}}.{{name}}".lstrip("."))
numbers = [f"--config.{{name}}=1" for name in names[True]]
nones = [f"--config.{{name}}={{text}}" for name in names[True]
         for text in ("none", "None")]
sys.argv = ["x", "--config={CONFIGS / "digits.py"}", *numbers, *nones]
flags.FLAGS(sys.argv)
config = flag.value.copy_and_resolve_references()
config_lib.check(config)
flat = {{f"{{g}}.{{k}}": v for g, fields in config.items()
        if hasattr(fields, "items") for k, v in fields.items()}}
print(json.dumps([flat[name] for name in names[True]]))
refused = 0
for name in names[False]:
  group, _, field = name.rpartition(".")
  changed = flag.value.copy_and_resolve_references()
  target = changed[group] if group else changed
  target[field] = None
  try:
    config_lib.check(changed)
  except errors.ConfigError as error:
    refused += f"config.{{name}}=None: expected" in str(error)
print(refused == len(names[False]))
"""
  values, all_others_refused = child.python(code).splitlines()
  values = json.loads(values)
  assert len(values) > 5 and set(values) == {None}
  assert all_others_refused == "True"


@pytest.mark.parametrize(
  "override, message",
  [
    ("train.batch_size=None", "batch_size=None: expected an integer"),
    ("train.batch_size=x", "x"),
    ("langevin.tau=Nope", "Nope"),
  ],
)
def test_no_other_field_takes_none_or_text(tmp_path, override, message):
  process = child.start(tmp_path / "run", f"--config.{override}")
  assert message in child.finish(process, status=1)
  assert not (tmp_path / "run").exists()
