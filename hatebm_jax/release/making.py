"""Makes a release from a run, or from other people's files."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from hatebm_jax import config as config_lib
from hatebm_jax import restore
from hatebm_jax.convert import network
from hatebm_jax.objectives.parts import start
from hatebm_jax.release import card, golden, other_files
from hatebm_jax.run import buckets, changes, files, weights, workdir

_OF_RUN = "The weights are those of a run of this package."
_AVERAGED_OF_RUN = (
  "The weights are the averaged ones\nof a run of this package, under the "
  "names of raw weights."
)


def from_run(
  path: epath.PathLike,
  out: epath.PathLike,
  checkpoint: int | None = None,
  license_name: str = card.UNKNOWN,
  averaged_only: bool = False,
) -> epath.Path:
  """Makes a release of a run's weights, raw and averaged.

  Args:
    path: Path of the run's workdir.
    out: Path of the folder to make; it must be missing or empty.
    checkpoint: Training step of the checkpoint; None: the newest.
    license_name: Licence of the weights, for the model card.
    averaged_only: Leaves the run's raw weights out. The averaged ones become
      the raw weights of the release, which is half as large.

  Returns:
    The path of the release.

  Raises:
    CheckpointError: If no checkpoint is whole.
    ConfigError: If the run has a generator of the user's own.
    ReleaseError: If `out` is not empty.
    WorkdirError: If the workdir holds no run or no such checkpoint.
  """
  path = files.as_path(path)
  config = workdir.read_config(path)
  config.sample.checkpoint = checkpoint
  pick = lambda model, state: start.weights_of(state)
  with _made_whole(out) as folder:
    _, found, step = restore.restore_part(config, path, pick)
    config.sample.checkpoint = None
    recorded = changes.read(path)
    changes.undo(config, recorded, step)
    earlier = [entry for entry in recorded if entry["step"] < step]
    if earlier:
      files.write_json(folder / changes.FILE, earlier, indent=2)
    figures = _figures(path, step, averaged_only)
    if figures is not None:
      files.write_json(folder / workdir.EVALUATION, figures, indent=2)
    origin = _OF_RUN
    if averaged_only:
      found = _averaged(found)
      config.sample.weights = "raw"
      origin = _AVERAGED_OF_RUN
    _write(folder, config, step, found)
    _finish(folder, out, config, origin, license_name)
  return files.as_path(out)


def from_files(
  config: ml_collections.ConfigDict,
  out: epath.PathLike,
  paths: Mapping[str, network.Path],
  license_name: str = card.UNKNOWN,
) -> epath.Path:
  """Makes a release of other people's weights.

  The files do not tell how long the networks were trained. The release takes
  the number of training steps from the config.

  Args:
    config: Config of the experiment that the files come from.
    out: Path of the folder to make; it must be missing or empty.
    paths: Path of the file of each network, by `hat`, `generator`, `encoder` or
      `discriminator`, see `other_files.read`.
    license_name: Licence of the weights, for the model card.

  Returns:
    The path of the release.

  Raises:
    ConfigError: If the config cannot be used, or the files are of another one.
    ConvertError: If a file cannot be read.
    ReleaseError: If an array does not fit the config, or `out` is not empty.
  """
  config_lib.check(config)
  config = config.copy_and_resolve_references()
  config.unlock()
  found = other_files.read(config, paths)
  if config.objective == "joint" and not config.generator.source:
    config.generator.source = os.path.basename(os.fspath(paths["generator"]))
  with _made_whole(out) as folder:
    _write(folder, config, config.train.num_steps, found)
    _finish(folder, out, config, _origin(paths), license_name)
  return files.as_path(out)


def _averaged(found: dict[str, Any]) -> dict[str, Any]:
  """Returns the averaged weights of all parts that have them, as raw ones."""
  return {
    name: {"params": part["average"]} if "average" in part else part
    for name, part in found.items()
  }


def _origin(paths: Mapping[str, network.Path]) -> str:
  """Says which files the weights come from."""
  names = {k: os.path.basename(os.fspath(path)) for k, path in paths.items()}
  listed = ", ".join(f"`{name}` (the {k})" for k, name in names.items())
  return (
    f"The weights were converted from other people's files: {listed}. The\n"
    "number of training steps is the one of the config. There are no averaged "
    "weights."
  )


@contextlib.contextmanager
def _made_whole(out: epath.PathLike) -> Iterator[epath.Path]:
  """Yields a new folder, which takes the place of `out` if all goes well."""
  out = files.as_path(out)
  if out.exists() and (not out.is_dir() or files.entries(out)):
    raise weights.ReleaseError(
      f"{out}: expected a folder that is empty or missing, found files in it. "
      "Name another --out."
    )
  files.check_writable(out)
  if buckets.is_bucket(out):
    with tempfile.TemporaryDirectory(prefix="hatebm_release_") as folder:
      yield files.as_path(folder)
      _upload(files.as_path(folder), out)
    return
  out.parent.mkdir(parents=True, exist_ok=True)
  folder = tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent)
  try:
    yield files.as_path(folder)
    os.chmod(folder, 0o777 & ~_umask())
    os.replace(folder, out)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _upload(folder: epath.Path, out: epath.Path) -> None:
  """Copies a release into a bucket; the weights, by which it is known, last."""
  found = list(files.all_files(folder))
  for file in sorted(found, key=lambda file: file.name == weights.FILE):
    buckets.upload(os.fspath(file), out / os.path.relpath(file, folder))


def _umask() -> int:
  """Returns the process's mask of permissions, which mkdtemp ignores."""
  mask = os.umask(0)
  os.umask(mask)
  return mask


def _write(
  folder: epath.Path,
  config: ml_collections.ConfigDict,
  step: int,
  found: dict[str, Any],
) -> None:
  """Writes the config and the weights: what is needed to use a release."""
  workdir.write_config(folder, config)
  arrays = {
    weights.name(keys): leaf
    for keys, leaf in jax.tree.leaves_with_path(jax.device_get(found))
  }
  weights.save(folder, step, arrays)


def _finish(
  folder: epath.Path,
  out: epath.PathLike,
  config: ml_collections.ConfigDict,
  origin: str,
  license_name: str,
) -> None:
  """Draws the golden samples and writes the model card."""
  record = golden.write(folder)
  text = card.make(
    name=files.as_path(out).name,
    config=config,
    origin=origin,
    golden=record,
    figures=workdir.read_evaluation(folder),
    license_name=license_name,
  )
  files.write_atomic(folder / card.FILE, text)


def _figures(
  path: epath.Path, step: int, averaged_only: bool
) -> dict[str, Any] | None:
  """Returns a run's figures if they are of the weights of a release.

  Args:
    path: Path of the run's workdir.
    step: Training step of the weights.
    averaged_only: Whether figures of raw weights do not count.
  """
  found = workdir.read_evaluation(path)
  protocol = found.get("protocol") if found else None
  if not isinstance(protocol, dict) or protocol.get("checkpoint_step") != step:
    return None
  if averaged_only and protocol.get("weights") != "averaged":
    return None
  return found
