"""What `--mode=check` does: it looks for all problems before a run is started.

A pod costs money while a path is corrected. This check runs on any host. It
opens the images, tries the workdir, compares the batch with the devices, and
says how large checkpoints and the state on each device are. For a TPU slice it
compiles the training step, from which memory and hours are estimated. Nothing
is trained, and nothing is written.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
from etils import epath

from hatebm_jax import (
  chains,
  data,
  errors,
  evaluation,
  feed,
  objectives,
  restore,
  sharding,
)
from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax.aot import report, topology
from hatebm_jax.run import (
  buckets,
  checkpoint,
  device_errors,
  files,
  lock,
  profile,
  weights,
  workdir,
)

_GIB = 2**30


class Findings:
  """Collects problems, and prints what is right line by line."""

  def __init__(self):
    self.problems: list[str] = []

  def say(self, title: str, text: str) -> None:
    """Prints what was found."""
    print(f"{title:<12}{text}", flush=True)

  def try_to(self, function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function; returns its result, or None if it finds a problem."""
    try:
      return function(*args)
    except (errors.UserError, OSError) as error:
      text = str(error)
    if text not in self.problems:  # Two checks may find the same problem.
      self.problems.append(text)
    return None


def check(
  config: ml_collections.ConfigDict, path: epath.Path, slice_name: str = ""
) -> list[str]:
  """Checks a run before it is started, and prints what was found.

  Args:
    config: Config of the command. Its values may be wrong.
    path: Path of the workdir.
    slice_name: TPU slice that the run is meant for, such as `v5e:4x4`. '' means
      the devices of this host.

  Returns:
    All problems, one message each.
  """
  found = Findings()
  wrong = config_lib.problems(config)
  found.problems.extend(wrong)
  _check_workdir(found, config, path, bool(wrong))
  if wrong:  # Nothing else can be computed from such values.
    return found.problems
  found.say("config", f"{config.objective}, all fields have allowed values")
  found.try_to(feed.check_dispatch, config.train)
  found.try_to(profile.check, config.train)
  found.try_to(restore.check_step, config, path)
  found.try_to(chains.evaluation_plan, config)
  _check_data(found, config)
  _check_evaluation(found, config)
  devices = found.try_to(_devices, slice_name)
  if devices:
    _check_devices(found, config, path, devices, slice_name)
  return found.problems


def _check_workdir(
  found: Findings,
  config: ml_collections.ConfigDict,
  path: epath.Path,
  is_wrong: bool,
) -> None:
  """Checks that the run can write into its workdir, and may."""
  before = len(found.problems)
  found.try_to(files.check_writable, path)
  found.try_to(weights.refuse_training, path)
  if not is_wrong:
    found.try_to(data.check_workdir, config.data.source, path)
    found.try_to(workdir.claim, path, config, False)
  if (path / lock.FILE).exists():
    found.try_to(_try_lock, path)
  if len(found.problems) == before:
    newest = max(checkpoint.steps(path), default=None)
    what = "new run" if newest is None else f"goes on from step {newest}"
    found.say("workdir", f"{path}: can be written, {what}")


def _try_lock(path: epath.Path) -> None:
  with lock.hold(path):
    pass


def _check_data(found: Findings, config: ml_collections.ConfigDict) -> None:
  """Opens the images and reads a few of them."""
  splits = ["train"] + ["test"] * bool(config.train.test_every)
  for split in splits:
    source = found.try_to(_read_some, config, split)
    if source is not None:
      text = f"{source.name}: {source.num_images:,} images"
      if source.to_copy:
        text += f", {source.to_copy / 1e9:,.1f} GB to copy to each host"
      found.say("data", text)
    if split == "train" and source is not None:
      found.try_to(_check_number, source, config.train.batch_size)


def _read_some(config: ml_collections.ConfigDict, split: str) -> data.Source:
  """Returns a split after its first, middle and last image were read.

  Images that the run would first copy from a bucket are not read.
  """
  settings = config.data.copy_and_resolve_references()
  settings.cache_gib = 0.0  # Nothing else is decoded.
  source = data.open_source(settings, split)
  num = source.num_images
  # A stream would be read up to the last image.
  places = {0} if source.stream else {0, num // 2, num - 1}
  if not source.to_copy:
    for _ in source.read(sorted(places)):
      pass
  return source


def _check_number(source: data.Source, batch_size: int) -> None:
  data.batches(source, batch_size, seed=0).close()


def _check_evaluation(
  found: Findings, config: ml_collections.ConfigDict
) -> None:
  """Checks what the evaluation after training needs, set by set."""
  if not found.try_to(evaluation.has_network, config):
    return
  sets = config.ood.sets
  for part in ((), *((each,) for each in sets)):
    settings = config.copy_and_resolve_references()
    settings.ood.sets = part
    found.try_to(evaluation.check, settings)


def _devices(slice_name: str) -> tuple[topology.Chip | None, list[jax.Device]]:
  """Returns the kind of chip, if it is known, and the devices."""
  if slice_name:
    return topology.find(slice_name)
  device_errors.check_devices()
  return None, jax.devices()


def _check_devices(
  found: Findings,
  config: ml_collections.ConfigDict,
  path: epath.Path,
  devices: tuple[topology.Chip | None, list[jax.Device]],
  slice_name: str,
) -> None:
  """Checks batch, memory, checkpoints and time."""
  chip, places = devices
  batch_size = config.train.batch_size
  before = len(found.problems)
  found.try_to(data.check_batch, batch_size, len(places))
  fits = len(found.problems) == before
  if fits:
    found.say(
      "devices",
      f"{len(places)} x {places[0].device_kind}, "
      f"{batch_size // len(places)} of {batch_size} images each",
    )
  # A batch that does not divide has no state on these devices.
  mesh = sharding.make_mesh(places if fits else jax.devices()[:1])
  state = found.try_to(_state, config, path, mesh)
  if state is None:
    return
  whole, part = state_bytes(state)
  _check_checkpoints(found, config, path, whole)
  if fits:
    found.say(
      "memory", f"{_size(part)} of state on each device, before computing"
    )
  if fits and chip:
    print("Compiling the training step. A large config takes minutes.")
    result = found.try_to(report.make, config, slice_name)
    if result:
      _check_compiled(found, config, result)
  elif fits:
    found.say(
      "time", "unknown; --topology=v5e:4x4, for example, estimates TPUs"
    )


def _state(
  config: ml_collections.ConfigDict,
  path: epath.Path,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Returns the abstract state of a run whose other runs can be read."""
  objective = objectives.make(config, mesh)
  if not checkpoint.steps(path):
    objective.load_frozen()
  return compile_lib.abstract_state(config, objective, mesh)


def state_bytes(state: Any) -> tuple[int, int]:
  """Returns the size of a state as a whole, and on each device, in bytes.

  Args:
    state: State as shapes, dtypes and shardings.
  """
  leaves = jax.tree.leaves(state)
  sizes = [leaf.dtype.itemsize for leaf in leaves]
  shards = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
  whole = sum(
    size * math.prod(leaf.shape)
    for size, leaf in zip(sizes, leaves, strict=True)
  )
  part = sum(size * math.prod(x) for size, x in zip(sizes, shards, strict=True))
  return whole, part


def num_checkpoints(group: ml_collections.ConfigDict) -> int:
  """Returns how many checkpoints a run holds at most at the same time.

  Args:
    group: The group `config.train`.
  """
  periodic = group.num_steps // group.keep_every if group.keep_every else 0
  # A new one is written before an old one is deleted.
  return group.keep_checkpoints + periodic + 1


def _check_checkpoints(
  found: Findings,
  config: ml_collections.ConfigDict,
  path: epath.Path,
  size: int,
) -> None:
  """Says how large checkpoints are, and compares them with the disk."""
  num = num_checkpoints(config.train)
  found.say(
    "checkpoints", f"{_size(size)} each, {_size(num * size)} for at most {num}"
  )
  if buckets.is_bucket(path):
    return  # It has no size that could be asked for.
  place = path
  while not place.exists() and place != place.parent:
    place = place.parent
  free = shutil.disk_usage(place).free
  if free < num * size:
    found.problems.append(
      f"--workdir={path}: expected room for {num} checkpoints, "
      f"{_size(num * size)}; found {_size(free)}. Make room, name a folder on "
      "another disk, or lower --config.train.keep_checkpoints."
    )


def _check_compiled(
  found: Findings, config: ml_collections.ConfigDict, result: dict[str, Any]
) -> None:
  """Says what the compiled training step needs."""
  peak, memory = result["peak_memory_per_chip"], result["memory_per_chip"]
  found.say("memory", f"{_size(peak)} of {_size(memory)} in a training step")
  if not result["fits"]:
    found.problems.append(
      f"a training step needs {_size(peak)} on each chip, and a chip has "
      f"{_size(memory)}. Use more chips, or lower --config.train.batch_size, "
      "--config.generator.bank_size or --config.model.width."
    )
  for line in times(config.train, result):
    found.say("time", line)


def times(
  group: ml_collections.ConfigDict, result: dict[str, Any]
) -> Iterator[str]:
  """Yields how long training takes and what it reads, as lines.

  Args:
    group: The group `config.train`.
    result: What `aot.report.make` has returned.
  """
  seconds = result["compiler_estimate"]["seconds_per_step"]
  yield (
    f"{group.num_steps * seconds / 3600:.1f} hours for {group.num_steps:,} "
    "training steps, by the compiler's estimate and not measured"
  )
  yield f"{group.batch_size / seconds:,.0f} images a second must be read"


def _size(num_bytes: int) -> str:
  """Returns a number of bytes for a message."""
  if num_bytes < _GIB:
    return f"{num_bytes / 2**20:.1f} MiB"
  return f"{num_bytes / _GIB:.2f} GiB"
