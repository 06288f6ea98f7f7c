"""Checkpoints of a run's state: the only file that imports orbax."""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class CheckpointError(ValueError):
  """A checkpoint is missing or cannot be restored."""


def exists(workdir: pathlib.Path) -> bool:
  """Says whether a workdir holds a checkpoint; makes no folder."""
  folder = pathlib.Path(workdir) / "checkpoints"
  return folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())


def restore_part(workdir: pathlib.Path, abstract: Any) -> Any:
  """Reads a part of the newest checkpoint of another run.

  Args:
    workdir: of that run.
    abstract: nested dicts, with the names that the part has in that run's
      state, of leaves with shape and dtype.

  Returns:
    The part, NumPy arrays.

  Raises:
    CheckpointError: if there is no checkpoint, its part has other names or
      shapes, or it cannot be read.
  """
  if not exists(workdir):
    raise CheckpointError(
      f"{workdir} holds no checkpoint: expected a trained run. Train it first."
    )
  folder = pathlib.Path(workdir).absolute() / "checkpoints"
  handler = ocp.PyTreeCheckpointHandler()
  try:
    with ocp.CheckpointManager(folder, item_handlers=handler) as manager:
      step = manager.latest_step()
      found = manager.item_metadata(step).tree
      _check_part(folder / str(step), abstract, found)
      as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
      args = ocp.args.PyTreeRestore(
        abstract,
        restore_args=jax.tree.map(lambda _: as_numpy, abstract),
        partial_restore=True,
      )
      return manager.restore(step, args=args)
  except CheckpointError:
    raise
  except Exception as error:
    raise CheckpointError(
      f"{folder} could not be read: {type(error).__name__}: {error}. Copy it "
      "anew."
    ) from error


def _check_part(path: pathlib.Path, abstract: Any, found: Any) -> None:
  """Raises a CheckpointError unless `found` holds the leaves of `abstract`."""
  shapes = {
    jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape
    for keys, leaf in jax.tree.leaves_with_path(found)
  }
  for keys, leaf in jax.tree.leaves_with_path(abstract):
    name = jax.tree_util.keystr(keys, simple=True, separator="/")
    if shapes.get(name) != leaf.shape:
      raise CheckpointError(
        f"{path}: expected {name} of the shape {leaf.shape}, found "
        f"{shapes.get(name, 'none')}."
      )


class Checkpoints:
  """The checkpoints of a workdir, by training step.

  A checkpoint is written beside its final name and renamed, so that a run that
  is killed while it writes leaves the older ones whole.
  """

  def __init__(self, workdir: pathlib.Path, keep: int = 3):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: of the run.
      keep: how many of the newest checkpoints to keep.
    """
    self.path = pathlib.Path(workdir).absolute() / "checkpoints"
    self._manager = ocp.CheckpointManager(
      self.path, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  def steps(self) -> list[int]:
    """Returns the training steps of all checkpoints, increasing."""
    return sorted(self._manager.all_steps())

  def latest_step(self) -> int | None:
    """Returns the training step of the newest checkpoint; None: none."""
    return self._manager.latest_step()

  def go_back(self, step: int) -> int:
    """Deletes the checkpoints after training step `step`.

    Returns:
      The training step of the newest one that is left; 0: there is none.
    """
    self._manager.wait_until_finished()
    for later in reversed(self.steps()):
      if later > step:
        self._manager.delete(later)
    return self._manager.latest_step() or 0

  def save(self, step: int, state: Any) -> None:
    """Starts to save `state` after training step `step`; does not wait."""
    if step != self._manager.latest_step():
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def restore(self, step: int, abstract_state: Any) -> Any:
    """Restores the checkpoint of a step.

    Args:
      step: from `latest_step`.
      abstract_state: `jax.ShapeDtypeStruct` leaves that carry shardings.

    Raises:
      CheckpointError: if what is stored does not fit, or cannot be read.
    """
    try:
      return self._manager.restore(
        step, args=ocp.args.StandardRestore(abstract_state)
      )
    except Exception as error:
      raise CheckpointError(
        f"Checkpoint {self.path / str(step)} could not be restored: "
        f"{type(error).__name__}: {error}. If it is damaged, move it away: the "
        "run goes on from the one before it."
      ) from error

  def close(self) -> None:
    """Waits until every checkpoint is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()
