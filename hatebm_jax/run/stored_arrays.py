"""Whether the arrays of a checkpoint are those that a state needs."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from hatebm_jax.run.newest_checkpoint import CheckpointError

# This stands for an array of a state that is not read.
SKIPPED = ocp.PLACEHOLDER


def check(path: epath.Path, abstract: Any, stored: Any, is_part: bool) -> None:
  """Raises a CheckpointError if a checkpoint cannot be read into a state.

  Args:
    path: Path of the checkpoint.
    abstract: Tree of `jax.ShapeDtypeStruct` or `SKIPPED`.
    stored: Orbax's metadata of the checkpoint's arrays.
    is_part: Whether names of the state may be missing in `abstract`.
  """
  expected, found = shapes(abstract), shapes(stored)
  if is_part:
    found = {name: found[name] for name in expected if name in found}
  _check_shapes(path, expected, found)
  _check_chunks(path, stored)


def shapes(tree: Any) -> dict[str, Any]:
  """Returns the shapes of arrays by name; `SKIPPED` for one that is skipped."""
  return {
    _name(keys): SKIPPED if leaf is SKIPPED else tuple(leaf.shape)
    for keys, leaf in jax.tree.leaves_with_path(tree)
  }


def _name(keys: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def _check_shapes(
  path: epath.Path,
  expected: dict[str, Any],
  found: dict[str, tuple[int, ...]],
) -> None:
  """Raises a CheckpointError for the first array that is not as expected."""
  for name in sorted(expected.keys() | found.keys()):
    if expected.get(name) is SKIPPED and name in found:
      continue
    if expected.get(name) != found.get(name):
      raise CheckpointError(
        f"{path} belongs to another network: {name} has the shape "
        f"{found.get(name, '(there is none)')}, expected "
        f"{expected.get(name, 'none')}. Use the --workdir and the config that "
        "belong together."
      )


def _check_chunks(path: epath.Path, stored: Any) -> None:
  """Raises a CheckpointError for an array that is stored in too large chunks.

  A chunk is read as a whole. A packed chunk of few bytes could fill the memory.

  Args:
    path: Path of the checkpoint.
    stored: Orbax's metadata of its arrays.
  """
  for keys, leaf in jax.tree.leaves_with_path(stored):
    chunk = leaf.storage.chunk_shape
    if any(a > max(b, 1) for a, b in zip(chunk, leaf.shape, strict=True)):
      raise CheckpointError(
        f"{path}: expected {_name(keys)} in chunks of at most "
        f"its shape {leaf.shape}, found {chunk}. Use a checkpoint that a run "
        "has written."
      )
