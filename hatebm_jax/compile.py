"""The state of a run and its compiled training steps.

Training, sampling, the compilation for TPUs and the benchmark share it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import rng as rng_lib
from hatebm_jax import sharding
from hatebm_jax.objectives.parts import objective as objective_lib


def abstract_state(
  config: ml_collections.ConfigDict,
  objective: objective_lib.Objective,
  mesh: Mesh,
) -> Any:
  """Returns the state of an objective as shapes, dtypes and shardings.

  Args:
    config: Config of the run.
    objective: Objective of the run.
    mesh: Mesh that the state lies on.
  """
  rng = jax.eval_shape(jax.random.key, config.seed)
  shapes = jax.eval_shape(objective.init, rng, *objective.frozen)
  shardings = sharding.named(mesh, objective.partition_specs(shapes))
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    shapes,
    shardings,
  )


def init_state(
  config: ml_collections.ConfigDict,
  objective: objective_lib.Objective,
  abstract: Any,
  frozen: tuple[Any, ...] = (),
) -> Any:
  """Returns the state of a new run, with the shardings of its abstract state.

  Args:
    config: Config of the run.
    objective: Objective of the run.
    abstract: Abstract state, from `abstract_state`.
    frozen: What the run takes over from elsewhere, from
      `objective.load_frozen`.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  init = jax.jit(objective.init, out_shardings=shardings)
  rng = rng_lib.stream(jax.random.key(config.seed), "init")
  return init(rng, *frozen)


def compile_steps(
  objective: objective_lib.Objective, state: Any
) -> Callable[
  ..., tuple[Any, objective_lib.Metrics, objective_lib.ShownImages]
]:
  """Jits a run of training steps, which uses up the state that it is given.

  Args:
    objective: Objective of the run.
    state: State of the run, concrete or from `abstract_state`.

  Returns:
    A function `(state, images, rng, steps) -> (state, metrics, images)`. It
    takes uint8 images `[n, batch, height, width, channels]`, the key of the run
    and the numbers of the training steps, integers `[n]`. Its metrics are
    `[n]`; its images are those of the last step.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

  def run(state, images, rng, steps):
    def step(carry, inputs):
      images, step = inputs
      rng_step = jax.random.fold_in(rng, step)
      state, metrics, shown = objective.step(carry[0], images, rng_step)
      return (state, shown), metrics

    _, _, shown = jax.eval_shape(objective.step, state, images[0], rng)
    shown = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shown)
    (state, shown), metrics = jax.lax.scan(
      step, (state, shown), (images, steps), unroll=len(steps) == 1
    )
    return state, metrics, shown

  return jax.jit(run, out_shardings=(shardings, None, None), donate_argnums=0)
