"""The manifest of a row: what was run, with what, and what came out.

`ROW/manifest.json` in the workdir is written after each stage. A stage that any
manifest of the workdir lists is done while its outputs are there.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.paper import rows, stages
from hatebm_jax import sample
from hatebm_jax.evaluation import REFERENCE_FILE
from hatebm_jax.run import files, workdir

FILE = "manifest.json"
_PACKAGES = (
  "flax",
  "hatebm-jax",
  "jax",
  "jaxlib",
  "numpy",
  "optax",
  "orbax-checkpoint",
  "scikit-learn",
  "tensorflow-datasets",
)
# What evaluation.json holds beside the figures.
_NO_FIGURES = ("protocol", "seconds")


def read(file: pathlib.Path) -> dict[str, Any]:
  """Returns the content of a manifest.

  Raises:
    FileError: If it is no manifest.
  """
  advice = "Give the manifest.json of a row, or move the file away."
  found = files.read_json(file, advice, dict)
  if not {"row", "options", "stages"} <= found.keys():
    raise files.FileError(
      f"{file}: expected the manifest of a row, found something else. {advice}"
    )
  return found


def done(options: rows.Options) -> dict[str, dict[str, Any]]:
  """Returns the stages that are done in a workdir, by their commands."""
  result = {}
  for file in sorted(options.workdir.glob(f"*/{FILE}")):
    result |= {stage["command"]: stage for stage in read(file)["stages"]}
  return result


def shown(stage: stages.Stage) -> str:
  """Returns the command of a stage as a user types it."""
  text = shlex.join(("python", *stage.command))
  return f"{text} > {shlex.quote(str(stage.prints))}" if stage.prints else text


def of_stage(
  stage: stages.Stage, started: float, ended: float, was_resumed: bool
) -> dict[str, Any]:
  """Returns the record of a stage that has ended well.

  Args:
    stage: The stage.
    started: Time at which it was started, in seconds since 1970.
    ended: Time at which it ended, in seconds since 1970.
    was_resumed: Whether a command before had begun to train.
  """
  time = datetime.datetime.fromtimestamp(started, datetime.UTC)
  return {
    "name": stage.name,
    "command": shown(stage),
    "started": time.isoformat(timespec="seconds"),
    "seconds": round(ended - started, 1),
    "resumed": was_resumed,
    "commit": _commit(),
    "machine": _machine(),
    "versions": _versions(),
  }


def write(
  row: rows.Row,
  options: rows.Options,
  plan: stages.Plan,
  records: Mapping[str, dict[str, Any]],
) -> None:
  """Writes the manifest of a row.

  Args:
    row: The row.
    options: What the user chose.
    plan: Stages of the row.
    records: Records of the stages that are done, by their names.
  """
  chosen = options._asdict()
  del chosen["workdir"]
  trained = [x for x, stage in plan.train.items() if stage.name in records]
  evaluated = {
    key: stage.outputs[0]
    for key, stage in plan.measure.items()
    if key in records and stage.outputs[0].name == workdir.EVALUATION
  }
  content = {
    "row": row.name,
    "options": chosen,
    "stages": list(records.values()),
    "runs": {
      config: _run(stages.run_folder(config, options))
      for config in row.configs
      if config in options.taken or config in trained
    },
    "reference_sha256": {k: _reference(x) for k, x in evaluated.items()},
    "figures": {k: _figures(x, options) for k, x in evaluated.items()},
  }
  files.write_json(options.workdir / row.name / FILE, content, indent=2)


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
  """Yields where the figures of two manifests differ, a line each."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      below = f"{path}/{key}" if path else key
      yield from differences(old.get(key), new.get(key), below)
  elif old != new:
    yield f"{path}: {old} there, {new} here"


@functools.cache
def _run(path: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a run and the SHA-256 of its weights."""
  config = workdir.read_config(path)
  restored = sample.restore(config, path)
  return {
    "config": json.loads(restored.config.to_json()),
    "step": restored.step,
    "weights_sha256": sample.digest(restored.variables),
  }


def _reference(evaluated: pathlib.Path) -> str | None:
  """Returns the SHA-256 of the moments of the reference images."""
  file = evaluated.with_name(REFERENCE_FILE)
  if not file.exists():
    return None
  digest = hashlib.sha256()
  with np.load(file) as arrays:
    for key in sorted(arrays):
      digest.update(np.ascontiguousarray(arrays[key]))
  return digest.hexdigest()


def _figures(file: pathlib.Path, options: rows.Options) -> dict[str, Any]:
  """Returns the figures of an evaluation, which name no workdir."""
  text = file.read_text()
  for folder in (options.workdir.absolute(), options.workdir):
    text = text.replace(f"folder:{folder}/", "folder:WORKDIR/")
  found = json.loads(text)
  return {k: v for k, v in found.items() if k not in _NO_FIGURES}


def _versions() -> dict[str, str]:
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue  # It is not installed, and was not used.
  return found


def _commit() -> str | None:
  """Returns the commit of the checkout, with + if files differ; or None."""
  folder = pathlib.Path(__file__).parent
  git = lambda *words: subprocess.run(
    ["git", *words], cwd=folder, capture_output=True, text=True, check=True
  ).stdout.strip()
  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")
  except (OSError, subprocess.CalledProcessError):
    return None  # It is no checkout, or there is no git.


def _machine() -> str:
  """Returns the processor, its number of cores and the operating system."""
  cores = len(os.sched_getaffinity(0))
  return f"{_processor()}, {cores} cores, {platform.system()}"


def _processor() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  for line in info.read_text().splitlines() if info.exists() else ():
    if line.startswith("model name"):
      return line.partition(":")[2].strip()
  return platform.machine()
