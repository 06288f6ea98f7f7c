"""One program for each part of a run, to compare forms of the convolutions.

`timing` compares the length of two programs, which takes twice the time to
compile. Here a Langevin step is a share of one long chain.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import chains as chains_lib
from hatebm_jax import compile as compile_lib
from hatebm_jax import langevin, objectives
from hatebm_jax import rng as rng_lib
from hatebm_jax.benchmark import programs
from hatebm_jax.objectives import synthesis


def start(config: ml_collections.ConfigDict, mesh: Mesh) -> synthesis.State:
  """Returns the state of a new run; it is the same in all forms and precisions.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
  """
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  return compile_lib.init_state(config, objective, abstract)


def langevin_steps(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Callable[[], Any]:
  """Compiles a chain of synthesis, without the generator.

  Args:
    config: Config of a synthesis. The chain has its number of steps.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  networks = synthesis.make_networks(config)
  plan = chains_lib.training_plan(config)

  def run(variables, rngs, x):
    hat_fn, _ = chains_lib.bind(networks, variables)
    first = langevin.State(x, jnp.zeros_like(x))
    return langevin.sample(rngs, hat_fn, lambda x: x, first, plan.settings)[0]

  batch = config.train.batch_size
  x = jax.random.normal(jax.random.key(1), (batch, *networks.image_shape))
  rngs = rng_lib.per_index(jax.random.key(0), jnp.arange(batch))
  return programs.bind(
    chains_lib.over_devices(run, mesh),
    networks.variables(state, "raw"),
    rngs,
    x,
  )


def joint_steps(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Callable[[], Any]:
  """Compiles a chain that moves z too, with the networks of a synthesis.

  Args:
    config: Config of a synthesis. The chain has its number of steps.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  return programs.joint_call(
    config,
    mesh,
    synthesis.make_networks(config),
    state,
    config.langevin.num_steps,
  )


def updates(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Callable[[], Any]:
  """Compiles the updates of hat and generator as one program.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  networks = synthesis.make_networks(config)
  return programs.both_updates_call(config, mesh, networks, state)


def training_step(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Callable[[], Any]:
  """Compiles the whole training step.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    state: State of the run. It is kept, and the calls train a copy.
  """
  kept = [jax.tree.map(jnp.copy, state)]
  return programs.step_call(config, mesh, kept, config.langevin.num_steps)[0]


PROGRAMS = {
  "langevin_step": langevin_steps,
  "joint_step": joint_steps,
  "updates": updates,
  "training_step": training_step,
}
