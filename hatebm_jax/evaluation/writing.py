"""Writes what an evaluation found into the workdir."""

import itertools
import json
from typing import Any

import jax
from etils import epath

from hatebm_jax.evaluation import checkpoint_curve, compute, console
from hatebm_jax.metrics import moments
from hatebm_jax.run import files, workdir

FILE = workdir.EVALUATION
REFERENCE_FILE = "evaluation_reference.npz"
CURVE_FILE = "evaluation_checkpoints.json"


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
  _set_aside(file)


def _set_aside(file: epath.Path) -> None:
  """Gives a file of figures the next free name, and prints it."""
  numbered = (
    file.with_name(f"{file.stem}_{i}{file.suffix}") for i in itertools.count(1)
  )
  kept = next(candidate for candidate in numbered if not candidate.exists())
  file.rename(kept)
  print(f"The figures of the evaluation before are kept in {kept}", flush=True)


def read_curve(path: epath.PathLike) -> dict[str, Any] | None:
  """Returns the curve in evaluation_checkpoints.json, or None without one.

  Args:
    path: Path of the workdir, or of another folder.

  Raises:
    FileError: If the file does not hold a curve.
  """
  file = files.as_path(path) / CURVE_FILE
  if not file.exists():
    return None
  advice = "Move it away, and evaluate the checkpoints again."
  found = files.read_json(file, advice, dict)
  if not checkpoint_curve.is_curve(found):
    raise files.FileError(
      f"{file}: expected the figures of checkpoints, found something else. "
      f"{advice}"
    )
  return found


def save_curve(curve: dict[str, Any], path: epath.PathLike) -> None:
  """Writes a curve of checkpoints and its plot.

  These are evaluation_checkpoints.json and evaluation_checkpoints.png. If the
  file holds points that are not in the curve, because they have another
  protocol, it is kept under another name. Only the first of several processes
  writes.

  Args:
    curve: Curve of `measure_checkpoints`.
    path: Path of the workdir, or of another folder.
  """
  if jax.process_index() > 0:
    return
  path = files.as_path(path)
  keys = lambda x: {(point["step"], point["weights"]) for point in x["points"]}
  old = read_curve(path)
  if old is not None and keys(old) - keys(curve):
    _set_aside(path / CURVE_FILE)
  files.write_json(path / CURVE_FILE, curve, indent=2)
  files.write_png(
    path / "evaluation_checkpoints.png", checkpoint_curve.picture(curve)
  )


def write_curve(curve: dict[str, Any], path: epath.PathLike) -> None:
  """Prints a curve of checkpoints and writes it, see `save_curve`.

  Args:
    curve: Curve of `measure_checkpoints`.
    path: Path of the workdir, or of another folder.
  """
  if jax.process_index() > 0:
    return
  save_curve(curve, path)
  print(console.curve_table(curve))
  print(f"Written to {files.as_path(path) / CURVE_FILE}", flush=True)


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
