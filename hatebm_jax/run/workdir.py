"""A run's workdir: the config that it belongs to, and what it has measured."""

import contextlib
import json
import math
from typing import Any

import ml_collections
from etils import epath

from hatebm_jax import config as config_lib
from hatebm_jax import errors
from hatebm_jax.run import files

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
# The names that people read for the sets of evaluation.json.
SET_LABELS = {
  "hat": "hat samples",
  "generator": "generator alone",
  "samples": "given samples",
  "held_out": "held-out images",
}

# No run writes numbers beyond these: steps must be exact as float64, and means
# are those of float32 numbers.
_MAX_STEP, _MAX_VALUE = 2**53, 1e40


class WorkdirError(errors.UserError):
  """The workdir does not hold what the command needs, or is in use."""


def claim(
  path: epath.Path, config: ml_collections.ConfigDict, write: bool
) -> None:
  """Makes `path` the workdir of a config, or checks that it already is.

  Args:
    path: Path of the workdir.
    config: Config of the command.
    write: Whether this process writes; one of several does.

  Raises:
    WorkdirError: If the workdir's run has another config.
  """
  file = path / CONFIG
  if file.exists():
    difference = _first_difference(read_config(path), config)
    if difference:
      raise WorkdirError(
        f"{path} holds a run with {difference}. Use another --workdir, or the "
        "config that the run was started with (config.json in the workdir)."
      )
  if write:
    files.write_atomic(file, config.to_json(indent=2) + "\n")


def read_config(path: epath.Path) -> ml_collections.ConfigDict:
  """Reads the config that a workdir's run was started with.

  Raises:
    FileError: If the file is not JSON.
    WorkdirError: If there is no config, or the file holds something else.
  """
  file = path / CONFIG
  if not file.exists():
    raise WorkdirError(
      f"{path} holds no run: config.json is missing. Train one first with "
      f"--mode=train --workdir={path}, or correct --workdir."
    )
  advice = "Restore it from a copy, or train into a new --workdir."
  saved = files.read_json(file, advice, dict)
  try:
    return config_lib.from_saved(saved)
  except errors.ConfigError as error:
    raise WorkdirError(f"{file}: {error} {advice}") from error


def read_evaluation(path: epath.Path) -> dict[str, Any] | None:
  """Returns what a workdir's evaluation.json holds, or None without one.

  Raises:
    FileError: If it cannot be read.
  """
  file = path / EVALUATION
  if not file.exists():
    return None
  advice = "Evaluate the run again, or delete the file."
  return files.read_json(file, advice, dict)


def read_metrics(
  path: epath.Path, last_step: int | None = None
) -> list[dict[str, float]]:
  """Returns the whole lines of a workdir's metrics.jsonl.

  The last line may be half written, by a run that is writing it or was killed
  then. It is left out, and so is what no run writes: a line without a step, or
  with anything but numbers.

  Args:
    path: Path of the workdir. Without the file there are no lines.
    last_step: Last training step whose line is returned; None returns all.
  """
  file = path / METRICS
  lines = []
  for text in file.read_bytes().splitlines() if file.exists() else ():
    with contextlib.suppress(RecursionError, ValueError):
      lines.append(json.loads(text))
  lines = filter(is_metrics, lines)
  return [x for x in lines if last_step is None or x["step"] <= last_step]


def is_step(x: Any) -> bool:
  """Returns whether a value of a JSON file can be a training step."""
  return type(x) is int and 0 <= x <= _MAX_STEP


def is_metrics(line: Any) -> bool:
  """Returns whether JSON is a line of metrics.jsonl: a step and numbers."""
  if not isinstance(line, dict) or not is_step(line.get("step")):
    return False
  # NaN passes both comparisons.
  return all(
    type(x) in (int, float) and (not abs(x) > _MAX_VALUE or abs(x) == math.inf)
    for x in line.values()
  )


def run_config(
  path: epath.Path, config: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """Returns the config of a run, with the command's groups of use.

  Those are the groups in which every field may change.

  Args:
    path: Path of the workdir.
    config: Config of the command.

  Raises:
    WorkdirError: If the workdir holds no run, or its config cannot be read.
  """
  merged = read_config(path)
  for group, fields in config_lib.GROUPS.items():
    if group and all(field.may_change for field in fields.values()):
      merged[group] = config[group]
  return merged


def _plain(value: Any) -> Any:
  """Returns a value as JSON gives it back: tuples become lists."""
  return json.loads(json.dumps(value))


def _first_difference(
  saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> str:
  """Names the first field that makes two configs different runs, or ''."""
  for group, fields in config_lib.GROUPS.items():
    old, new = (saved[group], config[group]) if group else (saved, config)
    for name, field in fields.items():
      a, b = _plain(old[name]), _plain(new[name])
      if a != b and not field.may_change:
        full_name = f"{group}.{name}" if group else name
        return f"config.{full_name}={a!r}, the command says {b!r}"
  return ""
