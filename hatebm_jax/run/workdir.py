"""A run's workdir: the config that it belongs to, files written whole."""

import contextlib
import json
import math
import os
import pathlib
from typing import Any

import ml_collections

from hatebm_jax import config as config_lib
from hatebm_jax import errors

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
# What people call the sets of evaluation.json.
SET_LABELS = {
  "hat": "hat samples",
  "generator": "generator alone",
  "samples": "given samples",
  "held_out": "held-out images",
}

# Beyond these, no numbers of a run: steps are exact as float64, and means are
# of float32.
_MAX_STEP, _MAX_VALUE = 2**53, 1e40
_JSON_NAMES = {dict: "object", list: "list"}


class WorkdirError(errors.UserError):
  """The workdir does not hold what the command needs."""


def write_atomic(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.partial")
  try:
    with partial.open("wb") as file:
      file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)  # Of a full disk, what it has is needed.
    raise


def claim(
  path: pathlib.Path, config: ml_collections.ConfigDict, write: bool
) -> None:
  """Makes `path` the workdir of a config, or checks that it already is.

  Args:
    path: the workdir.
    config: of the command.
    write: whether this process writes (one of several does).

  Raises:
    WorkdirError: if the workdir's run has another config.
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
    write_atomic(file, config.to_json(indent=2) + "\n")


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
  """Reads the config that a workdir's run was started with.

  Raises:
    WorkdirError: if there is none, or it cannot be read.
  """
  file = path / CONFIG
  if not file.exists():
    raise WorkdirError(
      f"{path} holds no run: config.json is missing. Train one first with "
      f"--mode=train --workdir={path}, or correct --workdir."
    )
  advice = "Restore it from a copy, or train into a new --workdir."
  saved = read_json(file, advice, dict)
  try:
    return config_lib.from_saved(saved)
  except errors.ConfigError as error:
    raise WorkdirError(f"{file}: {error} {advice}") from error


def read_json(file: pathlib.Path, advice: str, kind: type) -> Any:
  """Reads a JSON file of a workdir. It is data: nothing in it is run.

  Args:
    file: that exists.
    advice: what to do if it cannot be read: the end of the message.
    kind: of what it holds: dict or list.

  Raises:
    WorkdirError: if it is not valid JSON, or not of that kind.
  """
  try:
    found = json.loads(file.read_bytes())
  except (OSError, RecursionError, ValueError) as error:
    raise WorkdirError(
      f"{file} is not valid JSON ({error}). {advice}"
    ) from error
  if not isinstance(found, kind):
    raise WorkdirError(
      f"{file}: expected a JSON {_JSON_NAMES[kind]}, found a "
      f"{type(found).__name__}. {advice}"
    )
  return found


def read_evaluation(path: pathlib.Path) -> dict[str, Any] | None:
  """Reads a workdir's evaluation.json; None: there is none.

  Raises:
    WorkdirError: if it cannot be read.
  """
  file = path / EVALUATION
  if not file.exists():
    return None
  return read_json(file, "Evaluate the run again, or delete the file.", dict)


def read_metrics(
  path: pathlib.Path, last_step: int | None = None
) -> list[dict[str, float]]:
  """Returns the whole lines of a workdir's metrics.jsonl.

  Half a line, of a run that writes it or was killed then, is left out, and so
  is what no run writes: a line without a step, or with more than numbers.

  Args:
    path: the workdir; without such a file there are no lines.
    last_step: later training steps are left out; None: all are there.
  """
  file = path / METRICS
  lines = []
  for text in file.read_bytes().splitlines() if file.exists() else ():
    with contextlib.suppress(RecursionError, ValueError):
      lines.append(json.loads(text))
  lines = filter(is_metrics, lines)
  return [x for x in lines if last_step is None or x["step"] <= last_step]


def is_step(x: Any) -> bool:
  """Whether a value of a JSON file can be a training step."""
  return type(x) is int and 0 <= x <= _MAX_STEP


def is_metrics(line: Any) -> bool:
  """Whether JSON is a line of metrics.jsonl: a step and numbers."""
  if not isinstance(line, dict) or not is_step(line.get("step")):
    return False
  # NaN passes both comparisons.
  return all(
    type(x) in (int, float) and (not abs(x) > _MAX_VALUE or abs(x) == math.inf)
    for x in line.values()
  )


def run_config(
  path: pathlib.Path, config: ml_collections.ConfigDict
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
  """Returns a value as JSON has it: tuples are lists."""
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
