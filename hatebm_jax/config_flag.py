"""The flag --config of every command: a name, a path, or nothing.

A name such as `digits` stands for a config that is installed with this package.
A path stands for any Python file with a function `get_config()`, or for the
folder of a run or a release. If the flag is left out, the config of the run in
--workdir is used.

absl needs a file to load in all cases. Arguments are therefore rewritten before
absl reads them. For a run, this module is itself the file: its `get_config`
takes the folder.
"""

import difflib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from hatebm_jax import config as config_lib
from hatebm_jax import configs, errors
from hatebm_jax.run import buckets, files
from hatebm_jax.run import workdir as workdir_lib

_FOLDER = pathlib.Path(configs.__path__[0])
_FLAG = re.compile(r"--?(config|workdir)(?:=(.*))?", re.DOTALL)
_HELP = re.compile(r"--?(help|helpshort|helpfull|helpxml|\?)(=.*)?")


class _IntegerOrNone(flags.IntegerParser):
  """Reads `None` too. The check of the config knows what may be None."""

  def convert(self, argument):
    return None if _is_none(argument) else super().convert(argument)


class _FloatOrNone(flags.FloatParser):
  """Reads `None` too. The check of the config knows what may be None."""

  def convert(self, argument):
    return None if _is_none(argument) else super().convert(argument)


class _IntegerOrText(flags.ArgumentParser):
  """Reads an integer, `None` or a word, for a field that may be any of them."""

  def parse(self, argument):
    if not isinstance(argument, str) or _is_none(argument):
      return None if _is_none(argument) else argument
    return int(argument) if argument.isdecimal() else argument


def _is_none(argument: Any) -> bool:
  return isinstance(argument, str) and argument.lower() == "none"


def define(
  help_text: str,
  flag_values: flags.FlagValues = flags.FLAGS,
  argv: list[str] | None = None,
) -> flags.FlagHolder:
  """Defines the flag --config.

  Args:
    help_text: First sentence of the help, which says what the config is for.
    flag_values: Set of flags that it is defined in.
    argv: Arguments that will be parsed; None: those of the process.
  """
  config_flags.register_flag_parser_for_type(int, _IntegerOrNone())
  config_flags.register_flag_parser_for_type(float, _FloatOrNone())
  config_flags.register_flag_parser_for_type(object, _IntegerOrText())
  return config_flags.DEFINE_config_file(
    "config",
    None,
    f"{help_text} The value is the name of an installed config, such as "
    "`digits`, the path of a Python file, or a folder with a run or a release. "
    "--config.group.field=value "
    "overrides a field.",
    lock_config=True,
    flag_values=flag_values,
    sys_argv=argv,
  )


def load(given: Iterable[str]) -> ml_collections.ConfigDict:
  """Returns the config that arguments describe, for commands without absl.

  Args:
    given: Arguments `--config=NAME` and `--config.group.field=value`.

  Raises:
    ConfigError: If there is no such config or field, an argument is another
      one, or a value is not allowed.
  """
  argv = ["", *arguments(given)]
  values = flags.FlagValues()
  holder = define("This is the config.", values, argv)
  try:
    rest = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  except (AttributeError, KeyError) as error:
    raise errors.ConfigError(_no_such_field(error)) from error
  if rest:
    raise errors.ConfigError(
      f"Unexpected arguments: {' '.join(rest)}. Leave them out; fields are set "
      "with --config.group.field=value."
    )
  config_lib.check(holder.value)
  return holder.value


def run(main: Callable[[list[str]], int], default: str | None = None) -> None:
  """Runs a command as `absl.app.run` does, after resolving its --config.

  Args:
    main: Function of the remaining arguments that returns the exit status.
    default: Name or path of the config that is used if there is no other.
  """
  try:
    sys.argv[1:] = arguments(sys.argv[1:], default)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  app.run(main, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags as absl does, with one message for an unknown field."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError) as error:
    print(f"error: {_no_such_field(error)}", file=sys.stderr)
    sys.exit(1)


def _no_such_field(error: AttributeError | KeyError) -> str:
  """Returns a message for what ml_collections raises for a field."""
  # One error may hold another one.
  text = error
  while isinstance(text, Exception):
    text = text.args[0]
  name, _, question = text.partition("\n")
  sentences = f"The config has no field {name}.", question, "--help lists all."
  return " ".join(filter(None, sentences))


def arguments(given: Iterable[str], default: str | None = None) -> list[str]:
  """Returns a command's arguments, with a file for --config.

  Args:
    given: Arguments of the command, without the program's name.
    default: Name or path of the config that is used if there is no other.

  Raises:
    ConfigError: If --config names no config; or if it is missing, and there is
      neither a run in --workdir nor a default.
    WorkdirError: If the config of the run in --workdir cannot be used.
  """
  result, values = [], {}
  rest = iter(flags.FLAGS.read_flags_from_files(list(given), force_gnu=False))
  for argument in rest:
    match = _FLAG.fullmatch(argument)
    if match:
      name, value = match.groups()
      value = next(rest, "") if value is None else value
      values[name] = find(value) if name == "config" else value
      argument = f"--{name}={values[name]}"
    result.append(argument)
  if "config" in values or any(map(_HELP.fullmatch, result)):
    return result
  # Overrides of its fields must come after it.
  return [f"--config={_replacement(values.get('workdir'), default)}", *result]


def names() -> list[str]:
  """Returns the names of the configs that are installed with this package."""
  return sorted(path.stem for path in _FOLDER.glob("[!_]*.py"))


def find(config: str) -> str:
  """Returns the path of a config's file.

  Args:
    config: Name of an installed config, path of a file, or path of a folder
      that holds a run or a release. A colon and an argument of its `get_config`
      may follow the path of a file.

  Raises:
    ConfigError: If there is no such config.
  """
  if config in names():
    return str(_FOLDER / f"{config}.py")
  if buckets.is_url(config):
    return _of_folder(config)
  path = os.path.expanduser(config)
  if os.path.isfile(path.partition(":")[0]):
    return path
  if os.path.isfile(os.path.join(path, workdir_lib.CONFIG)):
    return _of_folder(path)
  near = difflib.get_close_matches(pathlib.Path(config).stem, names(), 1)
  question = f" Did you mean {near[0]}?" if near else ""
  raise errors.ConfigError(
    f"--config={config} is neither a file nor the name of a config.{question} "
    f"The names are {', '.join(names())}."
  )


def given(flag: flags.Flag) -> set[str]:
  """Returns the names of the fields that the command line sets.

  Args:
    flag: The flag --config, after absl has parsed the command line.
  """
  # An element of a tuple is set as in --config.ood.sets[0]=digits.
  overrides = config_flags.get_override_values(flag)
  return {name.partition("[")[0] for name in overrides}


def label(path: str) -> str:
  """Returns the name of an installed config, or the path of another file."""
  file = pathlib.Path(path)
  return file.stem if file.parent == _FOLDER else path


def get_config(workdir: str) -> ml_collections.ConfigDict:
  """Returns the config of the run in a workdir."""
  return workdir_lib.read_config(files.as_path(workdir))


def _replacement(workdir: str | None, default: str | None) -> str:
  """Returns what --config is if it was left out."""
  if default:
    return find(default)
  if not workdir:
    raise errors.ConfigError(
      "--config is missing. Give the name of a config or the path of its file: "
      f"--config=NAME. The names are {', '.join(names())}."
    )
  if not (files.as_path(workdir) / workdir_lib.CONFIG).exists():
    raise errors.ConfigError(
      f"--config is missing, and {workdir} holds no run whose config could be "
      "used. Correct --workdir, or give the name of a config or the path of "
      f"its file: --config=NAME. The names are {', '.join(names())}."
    )
  return _of_folder(workdir)


def _of_folder(folder: str) -> str:
  """Returns what --config is for the config of a run or a release."""
  # An error inside a config file would reach the user as a traceback.
  get_config(folder)
  return f"{__file__}:{folder}"
