"""A run's workdir: the config that it belongs to, and what it has measured."""

import contextlib
import json
import math
import re
from collections.abc import Collection
from typing import Any

import ml_collections
from etils import epath

from hatebm_jax import config as config_lib
from hatebm_jax import errors
from hatebm_jax.config import OnResume
from hatebm_jax.run import buckets, changes, files, lines, newest_checkpoint

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
# The names that people read for the sets of evaluation.json.
SET_LABELS = {
  "hat": "hat samples",
  "ddls": "DDLS samples",
  "generator": "generator alone",
  "samples": "given samples",
  "held_out": "held-out images",
}

# No run writes numbers beyond these: steps must be exact as float64, and means
# are those of float32 numbers.
_MAX_STEP, _MAX_VALUE = 2**53, 1e40

# What a run was trained with. Its value stays, or a change is recorded.
_KEPT = (OnResume.FIXED, OnResume.RECORDED)
# The files that a run writes before its first checkpoint.
_FIRST_TRY = re.compile(
  r"metrics\.jsonl(\.\d{8})?|rollbacks\.json|nonfinite\.json|config_changes\.json"
  r"|events\.out\.tfevents\..*|images/\d{8}_\w+\.png"
)


class WorkdirError(errors.UserError):
  """The workdir does not hold what the command needs, or is in use."""


def claim(
  path: epath.Path, config: ml_collections.ConfigDict, write: bool
) -> None:
  """Makes `path` the workdir of a config, or checks that it already is.

  A first try that has no checkpoint does not count: the config takes its place.
  A run with checkpoints keeps its config until `take_over` is called.

  Args:
    path: Path of the workdir.
    config: Config of the command.
    write: Whether this process writes; one of several does.

  Raises:
    WorkdirError: If the workdir's run has another config.
  """
  if (path / CONFIG).exists():
    old = read_config(path)
    fixed = _changed(old, config, OnResume.FIXED)
    if _was_trained(path):
      if fixed:
        raise WorkdirError(
          f"{path} holds a run with {fixed}. Use another --workdir, or the "
          "config that the run was started with (config.json in the workdir)."
        )
      return
    found = fixed or _changed(old, config, OnResume.RECORDED)
    if found and write:
      _remove_first_try(path, found)
  if write:
    write_config(path, config)


def resume(
  path: epath.Path, config: ml_collections.ConfigDict, step: int
) -> None:
  """Makes a config the one of a run from a training step on.

  The training fields that change are recorded and printed.

  Args:
    path: Path of a workdir that `claim` has accepted.
    config: Config of the command.
    step: Number of training steps that the run has taken.
  """
  old = read_config(path)
  changes.record(
    path, step, changes.differences(old, config, OnResume.RECORDED)
  )
  current = config.copy_and_resolve_references()
  for name, field in config_lib.fields():
    if step and field.on_resume == OnResume.START:
      with current.unlocked():
        config_lib.put(current, name, config_lib.get(old, name))
  write_config(path, current)


def write_config(path: epath.Path, config: ml_collections.ConfigDict) -> None:
  """Writes a config into a folder.

  Args:
    path: Path of a workdir or of a release.
    config: Config of the run.
  """
  files.write_atomic(path / CONFIG, config.to_json(indent=2) + "\n")


def _changed(old: Any, new: Any, kind: OnResume) -> str:
  """Names the first field of a kind that differs, or ''."""
  for name, (a, b) in changes.differences(old, new, kind).items():
    return f"config.{name}={a!r}, the command says {b!r}"
  return ""


def _was_trained(path: epath.Path) -> bool:
  """Returns whether a workdir holds a checkpoint, whole or broken."""
  folders = (path / "checkpoints", path / newest_checkpoint.BROKEN)
  return any(
    entry.name.partition(".")[0].isdecimal()
    for folder in folders
    for entry in files.entries(folder)
  )


def _remove_first_try(path: epath.Path, found: str) -> None:
  """Removes what a run writes before its first checkpoint, and says so."""
  for file in [*files.entries(path), *files.entries(path / "images")]:
    if _FIRST_TRY.fullmatch(f"{file.relative_to(files.as_path(path))}"):
      file.unlink()
  print(
    f"{path} holds a first try without a checkpoint, with {found}. The command "
    "takes its place.",
    flush=True,
  )


def read_config(path: epath.Path) -> ml_collections.ConfigDict:
  """Reads the config of a workdir's run, with the newest values.

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
  found = []
  for text in lines.read(path / METRICS):
    with contextlib.suppress(RecursionError, ValueError):
      found.append(json.loads(text))
  found = list(filter(is_metrics, found))
  if buckets.is_bucket(path):
    found = _increasing(found)
  return [x for x in found if last_step is None or x["step"] <= last_step]


def _increasing(found: list[dict[str, float]]) -> list[dict[str, float]]:
  """Leaves out lines whose step is not beyond all before it.

  A run that is killed while it joins the parts of a file leaves lines twice.
  """
  last, kept = -1, []
  for line in found:
    if line["step"] > last:
      last = line["step"]
      kept.append(line)
  return kept


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
  path: epath.Path,
  config: ml_collections.ConfigDict,
  given: Collection[str] = (),
  step: int | None = None,
) -> ml_collections.ConfigDict:
  """Returns the config of a run, with the fields that a command may set.

  Those are the groups of use, in which every field may change freely, and
  others that the command line names.

  Args:
    path: Path of the workdir.
    config: Config of the command.
    given: Names of the fields that the command line sets, such as `seed`.
    step: Training step of the checkpoint that is used; None: the newest.

  Raises:
    ConfigError: If the command line sets a field that only training uses, and
      the run has another value.
    WorkdirError: If the workdir holds no run, or its config cannot be read.
  """
  merged = read_config(path)
  if step is not None:
    changes.undo(merged, changes.read(path), step)
  fields = dict(config_lib.fields())
  for name in given:
    old, new = (config_lib.get(x, name) for x in (merged, config))
    if fields[name].in_use:
      config_lib.put(merged, name, new)
    elif old != new and fields[name].on_resume in _KEPT:
      raise errors.ConfigError(
        f"config.{name}={new!r}: the run in {path} has {old!r}. This field has "
        "no effect here. --mode=sample and --mode=evaluate follow "
        f"{_in_use()}."
      )
  for group, members in config_lib.GROUPS.items():
    if group and all(x.on_resume == OnResume.FREE for x in members.values()):
      merged[group] = config[group]
  return merged


def ignored(given: Collection[str]) -> str:
  """Says which given fields sampling and evaluation do not follow.

  They are fields that a resumed run may change freely, so that nobody takes the
  images for those of another run.

  Args:
    given: Names of the fields that the command line sets.

  Returns:
    One line; '' if every field has an effect or must be the run's.
  """
  names = [
    f"config.{name}"
    for name, field in config_lib.fields()
    if name in given and not field.in_use and field.on_resume not in _KEPT
  ]
  if not names:
    return ""
  return f"Only training follows {', '.join(names)}."


def _in_use() -> str:
  """Lists the fields that sampling and evaluation follow."""
  names = []
  for group, members in config_lib.GROUPS.items():
    used = [name for name, field in members.items() if field.in_use]
    if group and len(used) == len(members):
      names.append(f"config.{group}")
    else:
      names += [f"config.{group}.{x}" if group else f"config.{x}" for x in used]
  return f"{', '.join(names[:-1])} and {names[-1]}"
