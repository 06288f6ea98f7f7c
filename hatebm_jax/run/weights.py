"""The weights in a folder: checkpoints of a run, or a release.

A release is a run without training state: `config.json`, and the weights in
`weights.safetensors`. The arrays have the names that they have in the state of
a run, such as `hat/params/block_0/conv_0/kernel`. `hat/average/...` are the
averaged weights; other people's files have none.

A file may come from a stranger. The library checks that its header fits its
size, and the file carries the SHA-256 of its arrays.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from etils import epath
from safetensors import numpy as safetensors_numpy

from hatebm_jax import errors
from hatebm_jax.run import checkpoint, files

FILE = "weights.safetensors"
_TYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}
_MAX_DIGITS = 12
# Parts of a state that a release of an SN-GAN may lack.
_OF_DISCRIMINATOR = ("discriminator", "spectral")
_ADVICE = "Copy the release again, or make it again."


class ReleaseError(errors.UserError):
  """A release is damaged, or cannot be used for what the command needs."""


def is_release(folder: epath.PathLike) -> bool:
  """Returns whether a folder is a release and not a run."""
  return (files.as_path(folder) / FILE).exists()


def opened(
  folder: epath.PathLike,
) -> "checkpoint.Checkpoints | Release":
  """Opens the weights of a run or of a release, to read them.

  The result is a context manager with `path`, `steps`, `newest_whole`, `check`,
  `shapes` and `restore`, whichever of the two the folder is.

  Args:
    folder: Path of a workdir or of a release.

  Raises:
    ReleaseError: If the folder is a release that cannot be read.
  """
  if is_release(folder):
    return Release(folder)
  return checkpoint.Checkpoints(folder, read_only=True)


def restore_part(folder: epath.PathLike, abstract: Any) -> Any:
  """Reads a part of another run, from its newest whole checkpoint.

  Args:
    folder: Path of that run's workdir, or of a release.
    abstract: The part as nested dicts. They have the names of that run's state,
      and leaves with shape and dtype.

  Returns:
    The part.

  Raises:
    CheckpointError: If there is no whole checkpoint, if the part has other
      names or shapes, or if it cannot be read.
    ReleaseError: The same, if the folder is a release.
  """
  with opened(folder) as saved:
    if not saved.steps():
      raise checkpoint.CheckpointError(
        f"{folder} holds no checkpoint: expected a trained run. Train it first."
      )
    return saved.restore(saved.newest_whole(), abstract, is_part=True)


def refuse_training(folder: epath.PathLike) -> None:
  """Refuses to train in the folder of a release.

  Args:
    folder: Path of the workdir of a command that trains.

  Raises:
    ReleaseError: If the folder is a release.
  """
  if is_release(folder):
    raise ReleaseError(
      f"{folder} is a release: it holds weights, but no optimizer state and no "
      "bank, so training cannot go on there. Start a new run from its weights "
      f"in another workdir: --workdir=DIR --config.train.start_from={folder}."
    )


def save(
  folder: epath.PathLike, step: int, arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes the weights of a release, whole or not at all.

  Args:
    folder: Path of the folder.
    step: Number of training steps that the weights have taken.
    arrays: Arrays by their names in the state of a run.
  """
  # The library writes the memory of an array as it lies there, so that a
  # transposed array would be written wrongly.
  arrays = {name: np.asarray(x, order="C") for name, x in arrays.items()}
  for name, array in arrays.items():
    if array.dtype.name not in _TYPES.values():
      raise ReleaseError(
        f"{name} has the type {array.dtype}: expected one of "
        f"{', '.join(_TYPES.values())}. Convert it first."
      )
  metadata = {"step": str(step), "sha256": _digest(arrays)}
  content = safetensors_numpy.save(arrays, metadata)
  files.write_atomic(files.as_path(folder) / FILE, content)


def name(keys: tuple[Any, ...]) -> str:
  """Returns the name of an array in a state: the path to it."""
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Returns a SHA-256 of arrays, their names, types and shapes."""
  digest = hashlib.sha256()
  for key in sorted(arrays):
    array = arrays[key]
    digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


class Release:
  """The weights of a release. It reads as `Checkpoints` of one step does.

  Attributes:
    path: Path of the file of weights.
  """

  def __init__(self, folder: epath.PathLike):
    """Reads the header of `weights.safetensors`; no array is read.

    Args:
      folder: Path of the release.

    Raises:
      ReleaseError: If the file is damaged or foreign.
    """
    self.path = files.as_path(folder) / FILE
    with self._reading() as file:
      metadata = file.metadata() or {}
      step = metadata.get("step", "")
      if not (step.isdecimal() and step.isascii() and len(step) < _MAX_DIGITS):
        raise ValueError("no number of training steps")
      self._step = int(step)
      self._sha256 = metadata.get("sha256")
      self._headers = {}
      for key in file.keys():  # noqa: SIM118 (it is no dict)
        header = file.get_slice(key)
        if header.get_dtype() not in _TYPES:
          raise ValueError(f"{key} of the type {header.get_dtype()}")
        self._headers[key] = (
          tuple(header.get_shape()),
          _TYPES[header.get_dtype()],
        )

  def steps(self) -> list[int]:
    """Returns the training step of the weights, as a list."""
    return [self._step]

  def newest_whole(self) -> int:
    """Returns the training step of the weights, which are checked.

    Raises:
      ReleaseError: If they are not what was written.
    """
    self.check(self._step)
    return self._step

  def check(self, step: int) -> None:
    """Reads the weights through.

    Args:
      step: Training step of the weights; there is only one.

    Raises:
      ReleaseError: If they are not what was written.
    """
    del step
    with self._reading() as file:
      arrays = {key: file.get_tensor(key) for key in self._headers}
      if _digest(arrays) != self._sha256:
        raise ValueError("the SHA-256 of its arrays does not fit")

  def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its name.

    Args:
      step: Training step of the weights; there is only one.
    """
    del step
    return {key: shape for key, (shape, _) in self._headers.items()}

  def restore(self, step: int, abstract: Any, is_part: bool = False) -> Any:
    """Reads the arrays that an abstract state asks for.

    Args:
      step: Training step of the weights; there is only one.
      abstract: Tree of `jax.ShapeDtypeStruct`. A leaf that is `SKIPPED` need
        not be there, and is not read.
      is_part: Whether `abstract` is a part of a state. It makes no difference
        here: a release is always a part.

    Returns:
      The same tree. Its leaves are placed as their shardings say. A leaf
      without a sharding becomes a NumPy array.

    Raises:
      ReleaseError: If an array is missing, or has another shape or type.
    """
    del step, is_part
    for keys, leaf in jax.tree.leaves_with_path(abstract):
      if leaf is not checkpoint.SKIPPED:
        self._check_array(name(keys), leaf)

    def read(keys, leaf):
      if leaf is checkpoint.SKIPPED:
        return leaf
      return _placed(file.get_tensor(name(keys)), leaf)

    with self._reading() as file:
      return jax.tree.map_with_path(read, abstract)

  def close(self) -> None:
    """Does nothing: the file is open only while it is read."""

  def _check_array(self, key: str, leaf: Any) -> None:
    """Raises a ReleaseError if the file lacks an array that is asked for."""
    shape, dtype = self._headers.get(key, (None, None))
    if (shape, dtype) == (tuple(leaf.shape), leaf.dtype.name):
      return
    if shape is None and "average" in key.split("/"):
      raise ReleaseError(
        f"{self.path} holds no averaged weights ({key} is missing), because "
        "the files that it was made from have none. Use the raw ones: "
        "--config.sample.weights=raw."
      )
    if shape is None and key.split("/")[0] in _OF_DISCRIMINATOR:
      raise ReleaseError(
        f"{self.path} holds no discriminator ({key} is missing), because none "
        "was given when it was made. Make it again with --discriminator=FILE. "
        "The generator alone can draw: --config.ddls.num_steps=0."
      )
    found = "there is none" if shape is None else f"{dtype} {shape}"
    raise ReleaseError(
      f"{self.path} is of another network: {key}: expected "
      f"{leaf.dtype.name} {tuple(leaf.shape)}, found {found}. Use the config "
      "that belongs to the weights."
    )

  @contextlib.contextmanager
  def _reading(self) -> Iterator[Any]:
    """Opens the file, and turns what goes wrong into one message."""
    try:
      with (
        files.local_copy(self.path) as copy,
        safetensors.safe_open(copy, "numpy") as file,
      ):
        yield file
    except errors.UserError:
      raise
    except (OSError, ValueError, safetensors.SafetensorError) as error:
      text = " ".join(str(error)[:300].split())
      raise ReleaseError(
        f"{self.path}: expected the weights of a release, found a damaged or "
        f"foreign file ({text}). {_ADVICE}"
      ) from error

  def __enter__(self) -> "Release":
    return self

  def __exit__(self, *_) -> None:
    self.close()


def _placed(array: np.ndarray, leaf: Any) -> Any:
  """Returns an array where the sharding of an abstract leaf says."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    return array
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index]
  )
