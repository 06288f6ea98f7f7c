"""Checkpoints of a run's state: the only file that imports orbax."""

import pathlib
from typing import Any

import orbax.checkpoint as ocp


class CheckpointError(ValueError):
  """A checkpoint is missing or cannot be restored."""


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

  def latest_step(self) -> int | None:
    """Returns the training step of the newest checkpoint; None: none."""
    return self._manager.latest_step()

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
