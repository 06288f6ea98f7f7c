"""The weights in a state, and new runs that start from trained weights."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from hatebm_jax import bank as bank_lib
from hatebm_jax import errors
from hatebm_jax.objectives.parts import generators
from hatebm_jax.objectives.parts.learner import Learner
from hatebm_jax.objectives.parts.objective import Objective
from hatebm_jax.run import files, workdir
from hatebm_jax.run import weights as weights_lib


def weights_of(state: Any) -> dict[str, Any]:
  """Returns the parts of a state that are weights and no training state.

  Args:
    state: NamedTuple of learners and other trees.

  Returns:
    The parts by their names: `params` and `average` of a learner, and what is
    neither a learner nor a bank.
  """
  found = {}
  for name, part in state._asdict().items():
    if isinstance(part, Learner):
      found[name] = {"params": part.params, "average": part.average}
    elif not isinstance(part, bank_lib.Bank):
      found[name] = part
  return found


def from_weights(
  config: ml_collections.ConfigDict, objective: Objective
) -> Objective:
  """Returns an objective whose new runs start from trained weights.

  Only the weights are taken over. The states of the optimizers are new.

  Args:
    config: Config of the new run. `config.train.start_from` is a run or a
      release.
    objective: Objective of the config.
  """
  shapes = jax.eval_shape(objective.init, jax.random.key(0), *objective.frozen)

  def init(rng, weights):
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    frozen = jax.tree.map(zeros, objective.frozen)
    state = _with_weights(objective.init(rng, *frozen), weights)
    return objective.restart(rng, state)

  abstract = weights_of(shapes)
  return objective._replace(
    init=init,
    frozen=(abstract,),
    load_frozen=lambda: (_load(config, objective, abstract),),
  )


def _with_weights(state: Any, weights: dict[str, Any]) -> Any:
  """Returns a state with other weights."""
  parts = {}
  for name, part in weights.items():
    old = getattr(state, name)
    parts[name] = old._replace(**part) if isinstance(old, Learner) else part
  return state._replace(**parts)


def _load(
  config: ml_collections.ConfigDict, objective: Objective, abstract: Any
) -> dict[str, Any]:
  """Reads the weights in `config.train.start_from`.

  Returns:
    The weights as NumPy arrays. If there are no averages, they start from the
    raw weights.
  """
  path = files.as_path(config.train.start_from)
  _check_config(config, objective, path)
  with weights_lib.opened(path) as saved:
    if not saved.steps():
      raise errors.ConfigError(
        f"config.train.start_from={str(path)!r} holds no checkpoint: expected "
        "a trained run or a release. Correct it."
      )
    step = saved.newest_whole()
    stored = saved.shapes(step)
    learned = {
      name: any(key.startswith(f"{name}/average/") for key in stored)
      for name, part in abstract.items()
      if isinstance(part, dict) and part.keys() == {"params", "average"}
    }
    wanted = {
      name: {"params": part["params"]} if not learned.get(name, True) else part
      for name, part in abstract.items()
    }
    found = saved.restore(step, wanted, is_part=True)
  for name, has_average in learned.items():
    if not has_average:
      found[name]["average"] = found[name]["params"]
  return found


def _check_config(config, objective, path) -> None:
  """Raises a ConfigError unless a folder has weights of the same networks."""
  other = workdir.read_config(path)
  if other.objective != config.objective:
    raise errors.ConfigError(
      f"config.train.start_from={str(path)!r} has the objective "
      f"{other.objective!r}: expected {config.objective!r}. Name another "
      "folder. A joint run takes the generator of another run with "
      "--config.generator.source."
    )
  module = objective.networks.generator
  if isinstance(module, nn.Module):  # It is not one of the user's own.
    what = f"config.train.start_from={str(path)!r}"
    generators.check_same(what, module, generators.make(other)[0])
