"""Reads the checkpoints of a run, to resume it or to use it, or a release.

A run is resumed from its whole state. Sampling and evaluation read only the
weights that they use. They know neither the batch nor the bank, so that a run
can be used on any number of devices, and a release like a run.
"""

import functools
import sys
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import ml_collections
from etils import epath
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax import errors, networks, objectives, sharding
from hatebm_jax.objectives.parts import learner
from hatebm_jax.objectives.parts.objective import Objective
from hatebm_jax.run import (
  changes,
  checkpoint,
  files,
  signals,
  weights,
  workdir,
)


class Restored(NamedTuple):
  """A trained run that is ready for use.

  Attributes:
    config: Config of the run, with the command's fields for sampling and
      evaluation.
    step: Number of training steps that its weights have taken.
    networks: Networks of the run.
    variables: Parameters of hat and generator, raw or averaged as the config
      says.
    encoder_variables: Variables of the encoder; None for a run without one.
    mesh: Mesh that the variables lie on.
    changes: Training fields that changed before this step, as
      `run.changes.read` returns them.
    discriminator_variables: Variables of the discriminator; None unless
      `config.ddls` asks for chains.
  """

  config: ml_collections.ConfigDict
  step: int
  networks: networks.Networks
  variables: tuple[Any, Any]
  encoder_variables: Any
  mesh: Mesh
  changes: tuple[dict[str, Any], ...] = ()
  discriminator_variables: Any = None


@signals.hold_back()
def restore(
  config: ml_collections.ConfigDict,
  path: epath.PathLike,
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
  given: Collection[str] = (),
) -> Restored:
  """Restores a release, or a checkpoint of a run.

  It is the newest checkpoint unless the config names one.

  Args:
    config: Config of the command. The groups `sample`, `evaluate`, `ddls`,
      `metrics`, `ood`, `chains` and `sharding` are taken from it, and the
      fields that `given` names. All other fields are those of the run.
    path: Path of the workdir, or of a release.
    generator: Generator of the user's own, if the run was trained with one.
    hat: Hat of the user's own, if the run was trained with one.
    given: Names of fields that the command line sets, such as `seed`.

  Raises:
    CheckpointError: If no checkpoint is whole, or it is of another network.
    ConfigError: If a field cannot be used, the run was trained with a generator
      of the user's own and none is given here, `given` names a field that has
      no effect and differs from the run's, or `config.ddls` asks for chains of
      a run without a discriminator.
    ReleaseError: If a release is damaged, or lacks weights that are needed.
    WorkdirError: If the workdir holds no run or no such checkpoint.
  """
  path = files.as_path(path)
  use = functools.partial(workdir.run_config, path, config, given)
  config_lib.check(use())
  if (line := workdir.ignored(given)) and jax.process_index() == 0:
    print(line, file=sys.stderr)
  with weights.opened(path) as saved:
    step = _pick_step(saved, config.sample.checkpoint, path)
    config = use(step)
    pick = functools.partial(_variables, config)
    model, part = _read(config, saved, step, pick, generator, hat)
  earlier = tuple(x for x in changes.read(path) if x["step"] < step)
  mesh = sharding.make_mesh()
  variables, of_encoder, of_discriminator = part
  return Restored(
    config, step, model, variables, of_encoder, mesh, earlier, of_discriminator
  )


def _variables(config, model, state):
  """Returns the variables of hat and generator, encoder and discriminator."""
  kind = config.sample.weights
  of_encoder = of_discriminator = None
  if model.encoder:
    of_encoder = model.encoder_variables(state, kind)
  if config.ddls.num_steps:
    of_discriminator = model.discriminator_variables(state, kind)
  return model.variables(state, kind), of_encoder, of_discriminator


@signals.hold_back()
def restore_part(
  config: ml_collections.ConfigDict,
  path: epath.PathLike,
  pick: Callable[[networks.Networks, Any], Any],
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
) -> tuple[networks.Networks, Any, int]:
  """Restores some arrays of a run, of a checkpoint as in `restore`.

  Args:
    config: Config of the run, with the command's fields for sampling.
    path: Path of the workdir, or of a release.
    pick: Function `(networks, state) -> part` that takes a state apart, without
      computing anything. Only the arrays of the part are read.
    generator: Generator of the user's own, if the run was trained with one.
    hat: Hat of the user's own, if the run was trained with one.

  Returns:
    The networks of the run, the part with its arrays on all devices, and the
    number of training steps that it has taken.
  """
  path = files.as_path(path)
  config_lib.check(config)
  with weights.opened(path) as saved:
    step = _pick_step(saved, config.sample.checkpoint, path)
    return *_read(config, saved, step, pick, generator, hat), step


def _read(config, saved, step, pick, generator, hat):
  """Returns the networks of a run, and what is picked from a checkpoint."""
  source = config.generator.source or config.train.start_from
  if generator is None and config.objective == "joint" and not source:
    raise errors.ConfigError(
      f"{saved.path.parent}: this run's hat sits on a generator that was given "
      "to train.train in Python. Give it to sample.restore too."
    )
  # Any batch and any bank suit one device. Nothing is computed on it.
  one_device = sharding.make_mesh(jax.devices()[:1])
  objective = objectives.make(config, one_device, generator, hat)
  model = objective.networks
  abstract = learner.as_stored(
    compile_lib.abstract_state(config, objective, one_device),
    saved.shapes(step),
  )
  abstract = _only(abstract, lambda state: pick(model, state))
  return model, pick(model, saved.restore(step, abstract))


def _only(abstract: Any, pick: Callable[[Any], Any]) -> Any:
  """Returns an abstract state that skips what is not picked.

  Every device gets the picked arrays whole.
  """
  leaves, structure = jax.tree.flatten(abstract)
  numbers = structure.unflatten(range(len(leaves)))
  picked = set(jax.tree.leaves(pick(numbers)))
  place = NamedSharding(sharding.make_mesh(), P())
  return structure.unflatten(
    jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    if i in picked
    else checkpoint.SKIPPED
    for i, leaf in enumerate(leaves)
  )


def _pick_step(
  saved: checkpoint.Checkpoints | weights.Release,
  wanted: int | None,
  path: epath.Path,
) -> int:
  """Returns the training step of the checkpoint to restore."""
  steps = saved.steps()
  if not steps:
    raise workdir.WorkdirError(
      f"{saved.path} holds no checkpoint. Train the run first: "
      f"--mode=train --workdir={path}."
    )
  if wanted is None:
    return saved.newest_whole()
  if wanted not in steps:
    raise workdir.WorkdirError(
      f"config.sample.checkpoint={wanted!r}: expected a training step that "
      f"{saved.path} holds, one of {', '.join(map(str, steps))}. 'all' goes "
      "with --mode=evaluate."
    )
  saved.check(wanted)
  return wanted


def check_step(config: ml_collections.ConfigDict, path: epath.Path) -> None:
  """Checks that `config.sample.checkpoint` will be there after training.

  Args:
    config: Config of a command that trains and then draws samples.
    path: Path of the workdir.

  Raises:
    ConfigError: If the run holds no such checkpoint when it has been trained.
  """
  wanted, group = config.sample.checkpoint, config.train
  if wanted is None:
    return
  steps = list(checkpoint.steps(path))
  done, keep = max(steps, default=0), group.keep_checkpoints
  if done < group.num_steps:
    multiples = range(0, group.num_steps + 1, group.checkpoint_every)
    due = {*multiples[-keep:], group.num_steps}
    steps = sorted({*steps, *(step for step in due if step > done)})
    every = group.keep_every
    periodic = range(every, group.num_steps + 1, every) if every else ()
    old = {step for step in periodic if step > done or step in steps}
    steps = {*steps[-keep:], *old}
  if wanted not in steps:
    raise errors.ConfigError(
      f"config.sample.checkpoint={wanted!r}: expected a checkpoint that is "
      f"there after training, one of {', '.join(map(str, sorted(steps)))}. "
      "Correct it, or leave it out for the newest one."
    )


def restore_or_init(
  config: ml_collections.ConfigDict,
  objective: Objective,
  mesh: Mesh,
  saved: checkpoint.Checkpoints,
  frozen: tuple[Any, ...] | None = None,
  tell: Callable[[int], None] = lambda step: None,
) -> tuple[Any, int]:
  """Returns the state of a run and how many training steps it has taken.

  Args:
    config: Config of the run.
    objective: Objective of the run.
    mesh: Mesh to put the state on.
    saved: Checkpoints of the run; a run without any is a new one.
    frozen: Result of `objective.load_frozen`; None: it is read here if the run
      is new.
    tell: Function of the number of training steps. It is called before anything
      is traced, compiled or restored.
  """
  step = saved.newest_whole()
  tell(step or 0)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  if step is None:
    frozen = objective.load_frozen() if frozen is None else frozen
    return compile_lib.init_state(config, objective, abstract, frozen), 0
  shapes = saved.shapes(step)

  def read(abstract):
    state = saved.restore(step, learner.as_stored(abstract, shapes))
    return learner.as_configured(state, abstract)

  return objective.resume(read, abstract, shapes), step
