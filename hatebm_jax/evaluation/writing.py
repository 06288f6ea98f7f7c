"""Writes what an evaluation found into the workdir."""

import json

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
  measured. Only the first of several processes writes.

  Args:
    result: Result of `evaluate` or `evaluate_file`.
    path: Path of the workdir, or of another folder.
  """
  if jax.process_index() > 0:
    return
  path = files.as_path(path)
  for name, picture in result.pictures.items():
    files.write_png(path / f"evaluation_{name}.png", picture)
  text = json.dumps(result.figures, indent=2, allow_nan=False) + "\n"
  files.write_atomic(path / FILE, text)
  if result.moments is not None:
    moments.save(path / REFERENCE_FILE, result.moments)


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
