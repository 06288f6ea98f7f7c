"""A run's workdir: the config that it belongs to, files written whole."""

import contextlib
import json
import math
import os
import pathlib
from typing import Any

import ml_collections

from hatebm_jax import errors

METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
# What people call the sets of evaluation.json.
SET_LABELS = {
  "hat": "hat samples",
  "generator": "generator alone",
  "samples": "given samples",
  "held_out": "held-out images",
}

# A resumed run may change these and stay the same run.
_FREE_GROUPS = (
  "sample",
  "evaluate",
  "metrics",
  "ood",
  "chains",
  "divergence",
  "sharding",
)
_FREE_TRAIN_FIELDS = (
  "num_steps",
  "log_every",
  "image_every",
  "checkpoint_every",
  "checkpoint_minutes",
  "keep_checkpoints",
  "test_every",
  "on_divergence",
  "max_rollbacks",
  "profile_at",
  "steps_per_dispatch",
)

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
  file = path / "config.json"
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
  file = path / "config.json"
  if not file.exists():
    raise WorkdirError(
      f"{path} holds no run: config.json is missing. Train one first with "
      f"--mode=train --workdir={path}, or correct --workdir."
    )
  advice = "Restore it from a copy, or train into a new --workdir."
  saved = read_json(file, advice, dict)
  if not _is_config(saved):
    raise WorkdirError(
      f"{file}: expected groups of fields, as in "
      f'{{"seed": 0, "train": {{"num_steps": 5}}}}, found something else. '
      f"{advice}"
    )
  return ml_collections.ConfigDict(saved)


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
  """Returns the run's config with the command's free groups."""
  merged = read_config(path)
  with merged.ignore_type():  # The file may hold no group there.
    for group in _FREE_GROUPS:
      merged[group] = config[group]
  return merged


def _is_config(saved: dict[str, Any]) -> bool:
  """Whether JSON has the structure of a config: values, or groups of them."""
  groups = [x for x in saved.values() if isinstance(x, dict)]
  values = [x for x in saved.values() if not isinstance(x, dict)]
  values += [x for group in groups for x in group.values()]
  # Names such as __class__ would reach into ConfigDict.
  return all(map(_is_value, values)) and all(
    field.isidentifier() and not field.startswith("_")
    for group in (saved, *groups)
    for field in group
  )


def _is_value(x: Any, max_depth: int = 2) -> bool:
  """Whether JSON is a field's value: of lists, pairs at the most."""
  if isinstance(x, list):
    return max_depth > 0 and all(_is_value(y, max_depth - 1) for y in x)
  return not isinstance(x, dict)


def _plain(value: Any) -> Any:
  """JSON's view of a value: tuples are lists."""
  return json.loads(json.dumps(value))


def _first_difference(
  saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> str:
  """Names the first field that makes two configs different runs, or ''."""
  old, new = _flat(saved.to_dict()), _flat(config.to_dict())
  for name in sorted(old.keys() | new.keys()):
    group, _, field = name.partition(".")
    if group in _FREE_GROUPS:
      continue
    if group == "train" and field in _FREE_TRAIN_FIELDS:
      continue
    if old.get(name) != new.get(name):
      return (
        f"config.{name}={old.get(name)!r}, the command says {new.get(name)!r}"
      )
  return ""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested dict -> {'group.field': value}."""
  result = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      result.update(_flat(value, f"{prefix}{key}."))
    else:
      result[prefix + key] = _plain(value)
  return result
