"""Finds the newest checkpoint of a run that is whole.

A broken checkpoint is never read, and never deleted: it is moved to
`workdir/broken_checkpoints`.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from hatebm_jax import errors
from hatebm_jax.run import buckets, checksums, files

BROKEN = "broken_checkpoints"


class CheckpointError(errors.UserError):
  """A checkpoint is missing, or cannot be read or written."""


def folders(path: epath.Path) -> dict[int, epath.Path]:
  """Returns the checkpoints in a folder by training step, newest first."""
  if buckets.is_bucket(path):
    # A checkpoint without the marker is being written, or never will be.
    names = (name.split("/") for name in buckets.objects(path))
    whole = (x[0] for x in names if x[1:] == [buckets.MARKER])
    found = {int(name): path / name for name in whole if name.isdecimal()}
  else:
    entries = files.entries(path)
    found = {int(p.name): p for p in entries if p.name.isdecimal()}
  return dict(sorted(found.items(), reverse=True))


def find(
  path: epath.Path,
  set_aside: bool = False,
  fetch: Callable[[int], epath.Path] | None = None,
) -> int | None:
  """Returns the training step of the newest whole checkpoint.

  Process 0 looks, and says on stderr what is broken in newer ones.

  Args:
    path: Folder of the checkpoints.
    set_aside: Whether newer, broken ones are moved away.
    fetch: Function that copies the checkpoint of a training step and returns
      the folder of the copy, which is checked; None: there are no copies.

  Returns:
    The training step, on every process; None if there is no checkpoint.

  Raises:
    CheckpointError: If there are checkpoints, and all are broken.
  """
  step, damages = None, {}
  if jax.process_index() == 0:
    step, damages = _look_for(path, set_aside, fetch)
    for broken, damage in damages.items() if step is not None else ():
      moved = f" It was moved to {path.parent / BROKEN}." if set_aside else ""
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


def _look_for(
  path: epath.Path,
  set_aside: bool,
  fetch: Callable[[int], epath.Path] | None,
) -> tuple[int | None, dict[int, str]]:
  """Looks for the newest whole checkpoint.

  Args:
    path: Folder of the checkpoints.
    set_aside: Whether newer, broken ones are moved away if one is whole.
    fetch: Function that copies a checkpoint, as in `find`.

  Returns:
    Its training step, and what is broken in each newer one.
  """
  found, damages = folders(path), {}
  for step, folder in found.items():
    damage = checksums.damage(fetch(step) if fetch else folder)
    if damage is None:
      for broken in damages if set_aside else ():
        _set_aside(found[broken])
      return step, damages
    damages[step] = damage
  return None, damages


def _set_aside(folder: epath.Path) -> None:
  """Moves a broken checkpoint to where no run deletes it."""
  aside = folder.parent.parent / BROKEN
  aside.mkdir(exist_ok=True)
  start = f"{folder.name}."
  number = sum(path.name.startswith(start) for path in files.entries(aside))
  if buckets.is_bucket(folder):
    buckets.move(folder, aside / f"{start}{number}")
  else:
    folder.rename(aside / f"{start}{number}")


def _agree(*numbers: int) -> tuple[int, ...]:
  """Returns the numbers of process 0, on every process."""
  if jax.process_count() == 1:
    return numbers
  return tuple(
    multihost_utils.broadcast_one_to_all(np.asarray(numbers)).tolist()
  )
