"""Local copies of checkpoints in a bucket that orbax does not know (`s3://`).

Orbax writes a checkpoint into a local folder. Its files are then uploaded, and
at last a marker. A checkpoint without the marker counts as never written. A
checkpoint is downloaded before it is read.

Of several processes the first one writes, and each reads a copy of its own.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from hatebm_jax import sharding
from hatebm_jax.run import buckets, checksums, files, newest_checkpoint
from hatebm_jax.run.newest_checkpoint import CheckpointError


def is_needed(path: epath.Path) -> bool:
  """Returns whether orbax cannot read and write a path itself.

  Args:
    path: Path of the folder of the checkpoints.
  """
  return os.fspath(path).startswith("s3://")


def gather(state: Any) -> Any:
  """Returns a state for the process that writes it alone.

  Args:
    state: Tree of arrays.

  Returns:
    The same tree in a run of one process. Otherwise its leaves are whole NumPy
    arrays. They are made one after the other, so that a device needs room for
    one more.
  """
  if jax.process_count() == 1:
    return state

  def whole(leaf):
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0))
    return sharding.fetch(leaf)

  return jax.tree.map(whole, state)


@contextlib.contextmanager
def end_together(path: epath.Path) -> Iterator[None]:
  """Ends a block on all processes, and with an error if process 0 has one.

  Args:
    path: Path of the folder of the checkpoints in the bucket.

  Raises:
    CheckpointError: If the block has raised one on any process.
  """
  error = None
  try:
    yield
  except CheckpointError as caught:
    error = caught
  (failed,) = sharding.any_process(error is not None)
  if failed:
    raise error or CheckpointError(
      f"A checkpoint could not be written to {path}; the message of process 0 "
      "says why."
    )


class Mirror:
  """The checkpoints in a bucket, and copies of the newest ones.

  Attributes:
    folder: Local folder of the copies. It is deleted with this object.
    writes: Whether this process writes into the bucket.
  """

  def __init__(
    self, path: buckets.BucketPath, keep: int, keep_every: int, read_only: bool
  ):
    """Makes an empty local folder.

    Process 0 removes what killed runs have left in the bucket.

    Args:
      path: Path of the folder of the checkpoints in the bucket.
      keep: Number of checkpoints to keep; older ones are deleted.
      keep_every: Checkpoints of multiples of this training step are kept too;
        0: none.
      read_only: Whether nothing is written or deleted in the bucket.
    """
    self._path, self._keep, self._keep_every = path, keep, keep_every
    self._temporary = tempfile.TemporaryDirectory(prefix="hatebm_checkpoints_")
    self.folder = files.as_path(self._temporary.name)
    self.writes = not read_only and jax.process_index() == 0
    if self.writes:
      whole = newest_checkpoint.folders(path)
      for folder in files.entries(path):
        if folder.name.isdecimal() and int(folder.name) not in whole:
          folder.rmtree(missing_ok=True)

  def push(self, step: int, item: epath.Path) -> None:
    """Uploads a checkpoint, then deletes the ones that are too old.

    Args:
      step: Training step of the checkpoint.
      item: Local folder of its files.
    """
    target = self._path / str(step)
    files.upload_all(item, target / checksums.ITEM)
    (target / buckets.MARKER).write_text("This checkpoint is whole.\n")
    steps = sorted(newest_checkpoint.folders(self._path))
    for old in steps[: -self._keep]:
      if not self._keep_every or old % self._keep_every:
        self.delete(old)

  def pull(self, step: int) -> epath.Path:
    """Downloads a checkpoint; all other copies are deleted.

    Args:
      step: Training step of the checkpoint.

    Returns:
      The local folder of its copy.
    """
    copy = self.folder / str(step)
    for old in files.entries(self.folder):
      shutil.rmtree(old)
    copy.mkdir()
    for name in buckets.objects(self._path / str(step)):
      (copy / name).parent.mkdir(parents=True, exist_ok=True)
      buckets.download(self._path / str(step) / name, os.fspath(copy / name))
    return copy

  def delete(self, step: int) -> None:
    """Deletes a checkpoint in the bucket.

    Args:
      step: Training step of the checkpoint.
    """
    (self._path / str(step)).rmtree(missing_ok=True)

  def close(self) -> None:
    """Deletes the local folder."""
    self._temporary.cleanup()
