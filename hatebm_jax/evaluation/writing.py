"""Writes what an evaluation found into the workdir."""

import itertools
import json
from typing import Any

import jax
from etils import epath

from hatebm_jax.evaluation import compute, console
from hatebm_jax.metrics import moments
from hatebm_jax.run import files, workdir

FILE = workdir.EVALUATION
REFERENCE_FILE = "evaluation_reference.npz"


def save(result: compute.Result, path: epath.PathLike) -> None:
  """Writes all files of an evaluation, also of one that is not complete.

  These are evaluation.json, a picture evaluation_NAME.png for each picture, and
  evaluation_reference.npz with the moments of the reference images if they were
  measured. Only the first of several processes writes. Figures that are there
  with another protocol are kept under another name.

  Args:
    result: Result of `evaluate` or `evaluate_file`.
    path: Path of the workdir, or of another folder.
  """
  if jax.process_index() > 0:
    return
  path = files.as_path(path)
  _keep(path, result.figures["protocol"])
  for name, picture in result.pictures.items():
    files.write_png(path / f"evaluation_{name}.png", picture)
  text = json.dumps(result.figures, indent=2, allow_nan=False) + "\n"
  files.write_atomic(path / FILE, text)
  if result.moments is not None:
    moments.save(path / REFERENCE_FILE, result.moments)


def _keep(path: epath.Path, protocol: dict[str, Any]) -> None:
  """Renames the figures of another protocol, so that they are not replaced."""
  file = path / FILE
  try:
    old = workdir.read_evaluation(path)
  except files.FileError:
    return  # It holds no figures.
  # JSON turns tuples into lists.
  if old is None or old.get("protocol") == json.loads(json.dumps(protocol)):
    return
  numbered = (
    file.with_name(f"{file.stem}_{i}{file.suffix}") for i in itertools.count(1)
  )
  kept = next(candidate for candidate in numbered if not candidate.exists())
  file.rename(kept)
  print(f"The figures of the evaluation before are kept in {kept}", flush=True)


def write(result: compute.Result, path: epath.PathLike) -> None:
  """Prints a table of the figures and writes all files, see `save`.

  Args:
    result: Result of `evaluate` or `evaluate_file`.
    path: Path of the workdir, or of another folder.
  """
  if jax.process_index() > 0:
    return
  save(result, path)
  print(console.table(result.figures))
  print(f"Written to {files.as_path(path) / FILE}", flush=True)
