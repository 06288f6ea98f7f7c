"""Checkpoints of a run's state: the only module that calls orbax.

A checkpoint is written beside its final name, with a note and the SHA-256 of
each of its files, and then renamed. A run that is killed while it writes leaves
the older checkpoints whole. In a bucket a marker is written last instead.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint._src.serialization import tensorstore_utils

from hatebm_jax import sharding
from hatebm_jax.run import (
  checksums,
  files,
  mirror,
  newest_checkpoint,
  signals,
  stored_arrays,
)
from hatebm_jax.run.newest_checkpoint import CheckpointError

SKIPPED = stored_arrays.SKIPPED

_NOTE = "note.json"
_ASIDE_SECONDS = 2.0


class _Handler(ocp.StandardCheckpointHandler):
  """Writes a note and checksums before a checkpoint gets its name.

  Attributes:
    step: Training step of the checkpoint that is being written. Orbax ends one
      write before the next one starts.
    note: Note of that checkpoint.
  """

  def __init__(
    self,
    copies: mirror.Mirror | None,
    processes: ocp.options.MultiprocessingOptions,
  ):
    super().__init__(multiprocessing_options=processes)
    self._mirror = copies
    self.step = 0
    self.note: dict[str, Any] = {}

  def finalize(self, directory: epath.Path) -> None:
    """Ends a write. Orbax calls this on one process when all files exist."""
    super().finalize(directory)
    files.write_json(directory / _NOTE, self.note, indent=1)
    checksums.write(directory)
    if self._mirror:
      self._mirror.push(self.step, directory)


def steps(workdir: epath.PathLike) -> list[int]:
  """Returns the training steps of a workdir's checkpoints; makes no folder."""
  folder = files.as_path(workdir) / "checkpoints"
  return sorted(newest_checkpoint.folders(folder))


@contextlib.contextmanager
def _as_ours(doing: str, advice: str) -> Iterator[None]:
  """Turns whatever orbax raises into a CheckpointError."""
  try:
    yield
  except CheckpointError:
    raise
  except Exception as error:
    text = " ".join(str(error).split())
    # Orbax reports pages. What matters is the error of the operating system.
    code = re.search(r"os_error_code='(\d+)'", text)
    text = f"{type(error).__name__}: {text[:300]}"
    if code:
      text = os.strerror(int(code[1]))
    raise CheckpointError(f"{doing}: {text}. {advice}") from error


def _limit_retries() -> None:
  """Makes TensorStore give up a request to `gs://` after about half a minute.

  It would try for a quarter of an hour. Orbax has no option for this.
  """
  for name in ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT"):
    getattr(tensorstore_utils, name, {})["gcs_request_retries"] = {
      "max_retries": 6,
      "initial_delay": "1s",
      "max_delay": "16s",
    }


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
  """Returns how orbax reads an array: placed by its sharding, or as NumPy."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray)
  return ocp.ArrayRestoreArgs(
    sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
  )


def _processes(alone: bool) -> ocp.options.MultiprocessingOptions:
  """Returns which processes work together in a folder: this one or all."""
  if not alone:
    return ocp.options.MultiprocessingOptions()
  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(me, {me})


class Checkpoints:
  """The checkpoints of a workdir, by training step.

  Attributes:
    path: Folder of the checkpoints.
  """

  @signals.hold_back()
  def __init__(
    self,
    workdir: epath.PathLike,
    keep: int = 3,
    read_only: bool = False,
    keep_every: int = 0,
  ):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: Path of the workdir.
      keep: Number of checkpoints to keep; older ones are deleted.
      read_only: Whether nothing is written or moved, because the run may be
        going on.
      keep_every: Checkpoints of multiples of this training step are kept too;
        0: none.
    """
    self.path = files.as_path(workdir) / "checkpoints"
    _limit_retries()
    self._read_only = read_only
    self._mirror = None
    if mirror.is_needed(self.path):
      self._mirror = mirror.Mirror(self.path, keep, keep_every, read_only)
      keep, keep_every = 1, 0  # of the copies
    self._writes = not self._mirror or self._mirror.writes
    # The folder that orbax works in.
    self._folder = self._mirror.folder if self._mirror else self.path
    processes = _processes(alone=self._mirror is not None)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None if read_only else keep,
      keep_period=None if read_only else keep_every or None,
      # Runs that were killed while they wrote leave such directories.
      cleanup_tmp_directories=not read_only,
      create=not read_only and not self._mirror,
      read_only=read_only,
      multiprocessing_options=processes,
      # Where a folder could not be made, orbax's other threads would wait for
      # it for minutes, and the process for them.
      async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    self._handler = _Handler(self._mirror, processes)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(checksums.ITEM, ocp.args.StandardSave, self._handler)
    reader = ocp.PyTreeCheckpointHandler(multiprocessing_options=processes)
    registry.add(checksums.ITEM, ocp.args.PyTreeRestore, reader)
    self._manager = ocp.CheckpointManager(
      self._folder, options=options, handler_registry=registry
    )

  def steps(self) -> list[int]:
    """Returns the training steps of all checkpoints, increasing."""
    return sorted(newest_checkpoint.folders(self.path))

  def latest_step(self) -> int | None:
    """Returns the training step of the newest checkpoint, if there is one."""
    if self._mirror:
      return max(self.steps(), default=None)
    return self._manager.latest_step()

  @signals.hold_back()
  def newest_whole(self) -> int | None:
    """Returns the training step of the newest whole checkpoint.

    Newer, broken ones are named on stderr and, unless this is read-only, moved
    to `workdir/broken_checkpoints`.

    Returns:
      The training step; None if there is no checkpoint.

    Raises:
      CheckpointError: If there are checkpoints, and all are broken.
    """
    step = newest_checkpoint.find(
      self.path, not self._read_only, self._mirror and self._mirror.pull
    )
    if self._mirror and jax.process_index() > 0 and step is not None:
      self.check(step)  # Process 0 has its copy.
    self._manager.reload()
    return step

  def check(self, step: int) -> None:
    """Reads the files of a checkpoint through.

    Args:
      step: Training step of the checkpoint.

    Raises:
      CheckpointError: If they are not what was written.
    """
    if self._mirror:
      self._mirror.pull(step)
      self._manager.reload()
    damage = checksums.damage(self._folder / str(step))
    if damage:
      raise CheckpointError(
        f"The checkpoint {self.path / str(step)} is broken: {damage}. Use "
        "another one."
      )

  def go_back(self, step: int) -> int:
    """Deletes the checkpoints after a training step.

    Args:
      step: The training step.

    Returns:
      The training step of the newest checkpoint that is left; 0 if none is.

    Raises:
      CheckpointError: If the newest one could not be written, or one cannot be
        deleted.
    """
    with self._writing():
      self._manager.wait_until_finished()
      if self._mirror:
        sharding.any_process(False)  # Others may still read what goes.
      for later in reversed(self.steps()) if self._writes else ():
        if later > step:
          if self._mirror:
            self._mirror.delete(later)
          if not self._mirror or later in self._manager.all_steps():
            self._manager.delete(later)
    return self.latest_step() or 0

  def save(self, step: int, state: Any, note: dict[str, Any]) -> None:
    """Starts to save a state; does not wait for the end.

    Args:
      step: Number of training steps that the state has taken.
      state: Tree of arrays.
      note: JSON that is kept with the state.

    Raises:
      CheckpointError: If the checkpoint before this one could not be written.
    """
    with self._writing():
      if self._mirror:
        state = mirror.gather(state)
      if self._writes and step != self._manager.latest_step():
        self._manager.wait_until_finished()
        self._handler.step, self._handler.note = step, note
        self._manager.save(step, args=ocp.args.StandardSave(state))

  def note(self, step: int) -> dict[str, Any]:
    """Returns the note of a checkpoint; old versions wrote none.

    Args:
      step: Training step of the checkpoint.

    Raises:
      FileError: If the note is not a JSON object.
    """
    file = self._folder / str(step) / checksums.ITEM / _NOTE
    if not file.exists():
      return {}
    advice = (
      "Move the checkpoint away; the run then goes on from the one before it."
    )
    return files.read_json(file, advice, dict)

  def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of a checkpoint, by its name.

    The names are paths such as `bank/z`.

    Args:
      step: Training step that `newest_whole` returned or `check` passed.

    Raises:
      CheckpointError: If the checkpoint cannot be read.
    """
    with self._reading(step):
      return stored_arrays.shapes(self._manager.item_metadata(step).tree)

  @signals.hold_back()
  def restore(self, step: int, abstract: Any, is_part: bool = False) -> Any:
    """Restores the checkpoint of a training step, or some of its arrays.

    Args:
      step: Training step that `newest_whole` returned or `check` passed.
      abstract: Tree of `jax.ShapeDtypeStruct`. A leaf that is `SKIPPED` must be
        there, and is not read.
      is_part: Whether names of the state may be missing in the dicts of
        `abstract`.

    Returns:
      The same tree. Its leaves are placed as their shardings say. A leaf
      without a sharding becomes a NumPy array.

    Raises:
      CheckpointError: If what is stored does not fit, or cannot be read.
    """
    with self._reading(step):
      stored = self._manager.item_metadata(step).tree
      stored_arrays.check(self.path / str(step), abstract, stored, is_part)
      args = ocp.args.PyTreeRestore(
        abstract,
        restore_args=jax.tree.map(_restore_args, abstract),
        partial_restore=is_part,
      )
      return self._manager.restore(step, args=args)

  def close(self, together: bool = True) -> None:
    """Waits until every checkpoint is on disk.

    Args:
      together: Whether all processes of the run are known to come here.

    Raises:
      CheckpointError: If one could not be written.
    """
    try:
      with self._writing(together and not self._read_only):
        self._manager.wait_until_finished()
        self._manager.close()
    finally:
      if self._mirror:
        self._mirror.close()

  def _reading(self, step: int) -> contextlib.AbstractContextManager[None]:
    """Turns what goes wrong while a checkpoint is read into one message."""
    return _as_ours(
      f"The checkpoint {self.path / str(step)} could not be restored",
      "Move it away; the run then goes on from the one before it.",
    )

  @contextlib.contextmanager
  def _writing(self, together: bool = True) -> Iterator[None]:
    """Turns what goes wrong in a write into one message, printed last."""
    ending = contextlib.nullcontext()
    if self._mirror and together:
      ending = mirror.end_together(self.path)
    doing = f"A checkpoint could not be written to {self.path}"
    advice = (
      "The older ones are unchanged. Make room, or mend the disk or the "
      "connection; then the same command resumes the run."
    )
    try:
      with ending, _as_ours(doing, advice):
        yield
    except CheckpointError:
      # Threads of C++ print their own errors; the message must come last.
      time.sleep(_ASIDE_SECONDS)
      raise

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, error: type[BaseException] | None, *_) -> None:
    self.close(together=error is None)
