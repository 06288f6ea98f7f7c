"""A network in training: parameters, their average, state of the optimizer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hatebm_jax import optim, sharding


class Learner(NamedTuple):
  """The parameters of a network and what its optimizer keeps.

  Attributes:
    params: Parameters, float32: the raw weights.
    average: Running average of the parameters.
    optimizer: State of the optax optimizer.
  """

  params: optax.Params
  average: optax.Params
  optimizer: optax.OptState


def make_optimizer(
  group: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Returns the optimizer that a network's group of the config describes."""
  return optim.adam(
    group.learning_rate, group.learning_rate_drops, group.max_grad_norm
  )


def start(
  params: optax.Params, optimizer: optax.GradientTransformation
) -> Learner:
  """Returns a learner that has taken no step."""
  return Learner(params, params, optimizer.init(params))


def update(
  learner: Learner,
  gradients: optax.Updates,
  optimizer: optax.GradientTransformation,
  average_decay: float,
) -> Learner:
  """Takes one optimizer step and folds the result into the average."""
  updates, opt_state = optimizer.update(
    gradients, learner.optimizer, learner.params
  )
  params = optax.apply_updates(learner.params, updates)
  average = optim.update_average(learner.average, params, average_decay)
  return Learner(params, average, opt_state)


def num_updates(learner: Learner) -> jax.Array:
  """Returns the number of updates that a learner has taken, an int32 scalar."""
  optimizer = learner.optimizer
  adam = optimizer[1] if _is_clipped(learner) else optimizer
  return adam[0].count


def describe(state: Any) -> None:
  """Prints the parameters that are trained.

  Args:
    state: NamedTuple of learners and other trees.
  """
  name_of = lambda keys: jax.tree_util.keystr(keys, simple=True, separator="/")
  for name, part in state._asdict().items():
    if isinstance(part, Learner):
      leaves = jax.tree.leaves_with_path(part.params)
      overview = parameter_overview.get_parameter_overview(
        {name_of(keys): x for keys, x in leaves}, include_stats=False
      )
      print(f"Parameters of the {name}:\n{overview}", flush=True)


def params_of(learner: Learner, weights: str) -> optax.Params:
  """Returns the `raw` or the `averaged` weights."""
  return {"raw": learner.params, "averaged": learner.average}[weights]


def as_stored(state: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
  """Returns an abstract state with the optimizers that a checkpoint has.

  A run may begin to clip gradients, or cease to, when it is resumed. This
  changes how optax nests the state of the optimizer, and not its arrays.

  Args:
    state: NamedTuple of learners and other trees.
    shapes: Shape of each array of the checkpoint by name.
  """
  stored = lambda name: f"{name}/optimizer/1/0/count" in shapes
  return type(state)(
    *(_nest(part, stored(name)) for name, part in state._asdict().items())
  )


def as_configured(state: Any, abstract: Any) -> Any:
  """Returns a state with the optimizers of an abstract state.

  It is the inverse of `as_stored`.

  Args:
    state: Restored state, a NamedTuple of learners and other trees.
    abstract: State of the objective that is trained.
  """
  return type(state)(
    *(
      _nest(part, _is_clipped(like))
      for part, like in zip(state, abstract, strict=True)
    )
  )


def _is_clipped(part: Any) -> bool:
  """Returns whether a learner's Adam stands behind a clip, as in `optim`."""
  match part:
    case Learner(optimizer=(optax.EmptyState(), (optax.ScaleByAdamState(), _))):
      return True
  return False


def _nest(part: Any, clipped: bool) -> Any:
  """Returns a part of a state, with a learner's Adam behind a clip or not."""
  if _is_clipped(part) and not clipped:
    return part._replace(optimizer=part.optimizer[1])
  match part:
    case Learner(optimizer=(optax.ScaleByAdamState(), _) as adam) if clipped:
      return part._replace(optimizer=(optax.EmptyState(), adam))
  return part


def partition_specs(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> Callable[[Any], Any]:
  """Returns how a state of learners and other trees lies on a mesh.

  Everything is replicated, except that `config.sharding.split_optimizer` splits
  the learners' optimizers and averages over the devices.

  Args:
    config: Config of the run.
    mesh: Mesh that the state lies on.

  Returns:
    A function of the abstract state, a NamedTuple of learners and other trees,
    that returns its partition specs.
  """

  def kept(tree):
    if not config.sharding.split_optimizer:
      return jax.tree.map(lambda _: P(), tree)
    return jax.tree.map(lambda a: sharding.largest_axis(a.shape, mesh), tree)

  def part(tree):
    specs = jax.tree.map(lambda _: P(), tree)
    if not isinstance(tree, Learner):
      return specs
    return specs._replace(
      average=kept(tree.average), optimizer=kept(tree.optimizer)
    )

  return lambda state: type(state)(*map(part, state))
