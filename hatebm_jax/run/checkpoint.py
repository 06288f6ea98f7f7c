"""Checkpoints of a run's state: the only file that imports orbax.

A checkpoint is written beside its final name, with a note and the SHA-256 of
each of its files, and renamed: a run that is killed while it writes leaves the
older ones whole. One whose files no longer have their checksums is broken; it
is never read, and never deleted.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from hatebm_jax import errors
from hatebm_jax.run import workdir as workdir_lib

_CHECKSUMS = "checksums.json"
_NOTE = "note.json"
_ITEM = "default"  # orbax's name of the one item of a checkpoint
_BROKEN = "broken_checkpoints"
_ASIDE_SECONDS = 2.0


class CheckpointError(errors.UserError):
  """A checkpoint is missing, or cannot be read or written."""


class _Handler(ocp.StandardCheckpointHandler):
  """Writes a note and checksums, before a checkpoint gets its name.

  Attributes:
    note: of the checkpoint that is being written. Orbax ends one write before
      the next one starts.
  """

  def __init__(self):
    super().__init__()
    self.note: dict[str, Any] = {}

  def finalize(self, directory) -> None:
    """Called by orbax, on one process, when all files are written."""
    super().finalize(directory)
    folder = pathlib.Path(directory)
    _write_json(folder / _NOTE, self.note)
    sums = {
      str(file.relative_to(folder)): _checksum(file) for file in _files(folder)
    }
    _write_json(folder / _CHECKSUMS, sums)


def _write_json(path: pathlib.Path, content: Any) -> None:
  workdir_lib.write_atomic(path, json.dumps(content, indent=1) + "\n")


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def _checksum(file: pathlib.Path) -> str:
  with file.open("rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def _damage(folder: pathlib.Path) -> str | None:
  """Says what is broken in the folder of a checkpoint; None: nothing is."""
  try:
    sums = json.loads((folder / _ITEM / _CHECKSUMS).read_text())
    for name, expected in sums.items():
      file = folder / _ITEM / name
      if not file.is_file():
        return f"{_ITEM}/{name} is missing"
      if _checksum(file) != expected:
        return f"{_ITEM}/{name} is not what was written"
  except FileNotFoundError:
    empty = not any(folder.iterdir())
    return "it is empty" if empty else f"{_ITEM}/{_CHECKSUMS} is missing"
  except (AttributeError, OSError, RecursionError, ValueError) as error:
    return f"{_ITEM}/{_CHECKSUMS}: {error}"
  return None


def _folders(path: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns the checkpoints in a folder by training step, newest first."""
  if not path.is_dir():
    return {}
  found = {int(p.name): p for p in path.iterdir() if p.name.isdecimal()}
  return dict(sorted(found.items(), reverse=True))


def exists(workdir: pathlib.Path) -> bool:
  """Says whether a workdir holds a checkpoint; makes no folder."""
  return bool(_folders(pathlib.Path(workdir) / "checkpoints"))


def _find_whole(
  path: pathlib.Path, set_aside: bool
) -> tuple[int | None, dict[int, str]]:
  """Looks for the newest whole checkpoint.

  Args:
    path: the folder of checkpoints.
    set_aside: whether to move newer, broken ones away, if one is whole.

  Returns:
    Its training step, and what is broken in newer ones.
  """
  folders, damages = _folders(path), {}
  for step, folder in folders.items():
    damage = _damage(folder)
    if damage is None:
      for broken in damages if set_aside else ():
        _set_aside(folders[broken])
      return step, damages
    damages[step] = damage
  return None, damages


def _set_aside(folder: pathlib.Path) -> None:
  """Moves a broken checkpoint to where no run deletes it."""
  aside = folder.parent.parent / _BROKEN
  aside.mkdir(exist_ok=True)
  number = sum(p.name.startswith(f"{folder.name}.") for p in aside.iterdir())
  folder.rename(aside / f"{folder.name}.{number}")


def _newest_whole(path: pathlib.Path, set_aside: bool = False) -> int | None:
  """Returns the training step of the newest whole checkpoint; None: none.

  One process looks, and says on stderr what is broken in newer ones.

  Args:
    path: the folder of checkpoints.
    set_aside: whether to move newer, broken ones away.

  Raises:
    CheckpointError: if there are checkpoints, and all are broken.
  """
  step, damages = None, {}
  if jax.process_index() == 0:
    step, damages = _find_whole(path, set_aside)
    for broken, damage in damages.items() if step is not None else ():
      moved = f" It was moved to {path.parent / _BROKEN}." if set_aside else ""
      print(
        f"warning: the checkpoint of training step {broken} in {path} is "
        f"broken: {damage}.{moved} Going on with that of step {step}.",
        file=sys.stderr,
        flush=True,
      )
  step, num_broken = _agree(-1 if step is None else step, len(damages))
  if step < 0 and num_broken:
    list_ = "; ".join(f"step {step}: {text}" for step, text in damages.items())
    raise CheckpointError(
      f"{path}: expected a whole checkpoint, found {num_broken} broken "
      f"({list_ or 'process 0 says how'}). Restore one from a copy, or train "
      "anew in another --workdir."
    )
  return None if step < 0 else step


def _agree(*numbers: int) -> tuple[int, ...]:
  """Returns the numbers of process 0, on every process."""
  if jax.process_count() == 1:
    return numbers
  return tuple(
    multihost_utils.broadcast_one_to_all(np.asarray(numbers)).tolist()
  )


def hide_threads() -> None:
  """Keeps what goes wrong in orbax's threads from the terminal.

  A write that fails fails in dozens of them; one error is raised for all.
  """
  logging.get_absl_logger().addFilter(lambda x: "orbax" not in x.pathname)


@contextlib.contextmanager
def _as_ours(doing: str, advice: str) -> Iterator[None]:
  """Turns whatever orbax raises into a CheckpointError."""
  try:
    yield
  except CheckpointError:
    raise
  except Exception as error:
    text = " ".join(str(error).split())
    # Of its pages, what the operating system said.
    code = re.search(r"os_error_code='(\d+)'", text)
    text = f"{type(error).__name__}: {text[:300]}"
    if code:
      text = os.strerror(int(code[1]))
    raise CheckpointError(f"{doing}: {text}. {advice}") from error


def restore_part(workdir: pathlib.Path, abstract: Any) -> Any:
  """Reads a part of the newest whole checkpoint of another run.

  Args:
    workdir: of that run.
    abstract: nested dicts, with the names that the part has in that run's
      state, of leaves with shape and dtype.

  Returns:
    The part, NumPy arrays.

  Raises:
    CheckpointError: if there is no whole checkpoint, its part has other names
      or shapes, or it cannot be read.
  """
  folder = pathlib.Path(workdir).absolute() / "checkpoints"
  step = _newest_whole(folder)
  if step is None:
    raise CheckpointError(
      f"{workdir} holds no checkpoint: expected a trained run. Train it first."
    )
  with (
    _as_ours(f"{folder / str(step)} could not be read", "Copy it anew."),
    ocp.CheckpointManager(
      folder,
      options=ocp.CheckpointManagerOptions(read_only=True),
      item_handlers=ocp.PyTreeCheckpointHandler(),
    ) as manager,
  ):
    expected = _shapes(abstract)
    stored = manager.item_metadata(step).tree
    found = _shapes(stored)
    found = {name: found[name] for name in expected if name in found}
    _check_shapes(folder / str(step), expected, found)
    _check_chunks(folder / str(step), stored)
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
      abstract,
      restore_args=jax.tree.map(lambda _: as_numpy, abstract),
      partial_restore=True,
    )
    return manager.restore(step, args=args)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {
    _name(keys): tuple(leaf.shape)
    for keys, leaf in jax.tree.leaves_with_path(tree)
  }


def _name(keys: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def _check_shapes(
  path: pathlib.Path,
  expected: dict[str, tuple[int, ...]],
  found: dict[str, tuple[int, ...]],
) -> None:
  """Raises a CheckpointError at the first array that is not as expected."""
  for name in sorted(expected.keys() | found.keys()):
    if expected.get(name) != found.get(name):
      raise CheckpointError(
        f"{path} is of another network: {name} has the shape "
        f"{found.get(name, '(there is none)')}, expected "
        f"{expected.get(name, 'none')}. Use the --workdir and the config that "
        "belong together."
      )


def _check_chunks(path: pathlib.Path, stored: Any) -> None:
  """Raises a CheckpointError at an array that is stored in too large chunks.

  A chunk is read as a whole: packed, one of few bytes could fill the memory.

  Args:
    path: of the checkpoint.
    stored: orbax's metadata of its arrays.
  """
  for keys, leaf in jax.tree.leaves_with_path(stored):
    chunk = leaf.storage.chunk_shape
    if any(a > max(b, 1) for a, b in zip(chunk, leaf.shape, strict=True)):
      raise CheckpointError(
        f"{path}: expected {_name(keys)} in chunks of at most "
        f"its shape {leaf.shape}, found {chunk}. Use a checkpoint that a run "
        "has written."
      )


class Checkpoints:
  """The checkpoints of a workdir, by training step."""

  def __init__(
    self, workdir: pathlib.Path, keep: int = 3, read_only: bool = False
  ):
    """Opens `workdir/checkpoints`.

    Args:
      workdir: of the run.
      keep: how many of the newest checkpoints to keep.
      read_only: whether nothing is written or moved, as the run may be going
        on.
    """
    self.path = pathlib.Path(workdir).absolute() / "checkpoints"
    self._read_only = read_only
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None if read_only else keep,
      # Of runs that were killed while they wrote.
      cleanup_tmp_directories=not read_only,
      create=not read_only,
      read_only=read_only,
    )
    self._handler = _Handler()
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for args in (ocp.args.StandardSave, ocp.args.StandardRestore):
      registry.add(_ITEM, args, self._handler)
    self._manager = ocp.CheckpointManager(
      self.path, options=options, handler_registry=registry
    )

  def steps(self) -> list[int]:
    """Returns the training steps of all checkpoints, increasing."""
    return sorted(_folders(self.path))

  def latest_step(self) -> int | None:
    """Returns the training step of the newest checkpoint; None: none."""
    return self._manager.latest_step()

  def newest_whole(self) -> int | None:
    """Returns the training step of the newest whole checkpoint; None: none.

    Newer, broken ones are named on stderr and, unless this is read-only, moved
    to `workdir/broken_checkpoints`.

    Raises:
      CheckpointError: if there are checkpoints, and all are broken.
    """
    step = _newest_whole(self.path, set_aside=not self._read_only)
    self._manager.reload()
    return step

  def check(self, step: int) -> None:
    """Reads a checkpoint's files through.

    Raises:
      CheckpointError: if they are not what was written.
    """
    damage = _damage(self.path / str(step))
    if damage:
      raise CheckpointError(
        f"The checkpoint {self.path / str(step)} is broken: {damage}. Use "
        "another one."
      )

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

  def save(self, step: int, state: Any, note: dict[str, Any]) -> None:
    """Starts to save `state` after training step `step`; does not wait.

    Args:
      step: that the state has taken.
      state: arrays.
      note: JSON that is kept with it.

    Raises:
      CheckpointError: if the checkpoint before this one could not be written.
    """
    with self._writing():
      if step != self._manager.latest_step():
        self._manager.wait_until_finished()
        self._handler.note = note
        self._manager.save(step, args=ocp.args.StandardSave(state))

  def note(self, step: int) -> dict[str, Any]:
    """Returns the note of a checkpoint; those of older versions have none.

    Args:
      step: as in `restore`.

    Raises:
      WorkdirError: if it is not a JSON object.
    """
    file = self.path / str(step) / _ITEM / _NOTE
    if not file.exists():
      return {}
    advice = "Move the checkpoint away: the run goes on from the one before it."
    return workdir_lib.read_json(file, advice, dict)

  def restore(self, step: int, abstract_state: Any) -> Any:
    """Restores the checkpoint of a step.

    Args:
      step: from `newest_whole`, or one that passed `check`.
      abstract_state: `jax.ShapeDtypeStruct` leaves that carry shardings.

    Raises:
      CheckpointError: if what is stored does not fit, or cannot be read.
    """
    path = self.path / str(step)
    with _as_ours(
      f"The checkpoint {path} could not be restored",
      "Move it away: the run goes on from the one before it.",
    ):
      stored = self._manager.item_metadata(step).tree
      _check_shapes(path, _shapes(abstract_state), _shapes(stored))
      _check_chunks(path, stored)
      args = ocp.args.StandardRestore(abstract_state)
      return self._manager.restore(step, args=args)

  def close(self) -> None:
    """Waits until every checkpoint is on disk.

    Raises:
      CheckpointError: if one could not be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
      self._manager.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      with _as_ours(
        f"A checkpoint could not be written to {self.path}",
        "Older ones are as they were. Make room or mend the disk; then the "
        "same command resumes the run.",
      ):
        yield
    except CheckpointError:
      # Threads of C++ print what they think of it; the message comes last.
      time.sleep(_ASIDE_SECONDS)
      raise

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()
