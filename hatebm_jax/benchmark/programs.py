"""The compiled programs that the benchmark times."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import chains as chains_lib
from hatebm_jax import compile as compile_lib
from hatebm_jax import langevin, objectives, sharding
from hatebm_jax import networks as networks_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import synthesis
from hatebm_jax.objectives.parts import hat_learning

_MATRIX = 2048  # rows and columns of the product that measures the machine


class Programs(NamedTuple):
  """Compiled programs in one form of the convolutions.

  Attributes:
    calls: Calls without arguments by their names.
    compile_seconds: Seconds to compile the long training step.
    step_bytes: Memory per device of that step, if its compiler says it.
  """

  calls: dict[str, Callable[[], Any]]
  compile_seconds: float
  step_bytes: int | None


def compile_all(
  config: ml_collections.ConfigDict, mesh: Mesh, short: int
) -> Programs:
  """Compiles all programs.

  Args:
    config: Config of a synthesis. The long programs have its number of
      Langevin steps.
    mesh: Mesh of the devices.
    short: Number of Langevin steps of the short programs.
  """
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  state = compile_lib.init_state(config, objective, abstract)
  calls = _update_calls(config, mesh, objective.networks, state)
  kept = [jax.tree.map(jnp.copy, state)]
  lengths = {"short": short, "long": config.langevin.num_steps}
  for name, num_steps in lengths.items():
    calls[f"joint_{name}"] = joint_call(
      config, mesh, objective.networks, state, num_steps
    )
    start = time.perf_counter()
    calls[f"step_{name}"], compiled = step_call(config, mesh, kept, num_steps)
    compile_seconds = time.perf_counter() - start
  return Programs(calls, compile_seconds, _program_bytes(compiled))


def matrix_product(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> tuple[Callable[[], Any], float]:
  """Compiles a square matrix product on every device.

  Args:
    config: Config whose networks' dtype the product has.
    mesh: Mesh of the devices.

  Returns:
    The call, and its GFLOP over all devices.
  """
  shape = mesh.size, _MATRIX, _MATRIX
  a = jax.random.normal(jax.random.key(0), shape, jnp.dtype(config.model.dtype))
  split = sharding.split(lambda a, b: a[0][None] @ b[0], mesh)
  return bind(split, a, a), 2 * _MATRIX**3 * mesh.size / 1e9


def step_call(
  config: ml_collections.ConfigDict, mesh: Mesh, kept: list[Any], num_steps: int
) -> tuple[Callable[[], Any], jax.stages.Compiled]:
  """Compiles a training step.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    kept: List of one state. A call uses it up and puts the new one there.
    num_steps: Number of Langevin steps.

  Returns:
    The call, and the compiled program.
  """
  config = ml_collections.ConfigDict(config)
  config.langevin.num_steps = num_steps
  objective = objectives.make(config, mesh)
  shape = (config.data.image_size, config.data.image_size, config.data.channels)
  rows = config.train.batch_size // jax.process_count()
  noise = np.random.default_rng(0).integers(0, 256, (1, rows, *shape))
  images = sharding.global_batches(noise.astype(np.uint8), mesh)
  rng, steps = jax.random.key(config.seed), np.arange(1)
  compiled = (
    compile_lib.compile_steps(objective, kept[0])
    .lower(kept[0], images, rng, steps)
    .compile()
  )

  def call():
    kept[0], metrics, _ = compiled(kept[0], images, rng, steps)
    return metrics

  return call, compiled


def joint_call(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  networks: networks_lib.Networks,
  state: synthesis.State,
  num_steps: int,
) -> Callable[[], Any]:
  """Compiles chains that move z too, with the scales of refinement."""
  chain = langevin.Settings(
    num_steps, 1e-4, 5e-3, temperature=1e-3, max_drift_y=2.5, update_z=True
  )
  plan = chains_lib.Plan(chain)

  def run(variables, rngs):
    first = chains_lib.start(networks, plan, rngs)
    return chains_lib.advance(networks, plan, variables, rngs, first)[0]

  rngs = rng_lib.per_index(
    jax.random.key(0), jnp.arange(config.train.batch_size)
  )
  return bind(
    chains_lib.over_devices(run, mesh),
    networks.variables(state, "raw"),
    rngs,
  )


def _update_calls(config, mesh, networks, state):
  """Compiles the updates of both networks."""
  hat, generator, x, z = _updates(config, mesh, networks)
  return {
    "hat_update": bind(hat, state.hat, x, 0.5 * x),
    "generator_update": bind(
      generator, state.generator, state.generator_stats, z, x
    ),
  }


def both_updates_call(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  networks: networks_lib.Networks,
  state: synthesis.State,
) -> Callable[[], Any]:
  """Compiles the updates of both networks as one program."""
  hat, generator, x, z = _updates(config, mesh, networks)

  def both(state, x, z):
    stats = state.generator_stats
    return hat(state.hat, x, 0.5 * x), generator(state.generator, stats, z, x)

  return bind(both, state, x, z)


def _updates(config, mesh, networks):
  """Returns both updates, images and latents."""
  batch = (config.train.batch_size, *networks.image_shape)
  x = jax.random.uniform(jax.random.key(1), batch, minval=-1.0)
  z = jax.random.normal(jax.random.key(2), (batch[0], *networks.latent_shape))
  return (
    hat_learning.make_hat_update(config, mesh, networks),
    synthesis.make_generator_update(config, mesh, networks),
    x,
    z,
  )


def bind(fn: Callable[..., Any], *args: Any) -> Callable[[], Any]:
  """Compiles `fn` for its arguments and returns a call without any."""
  compiled = jax.jit(fn).lower(*args).compile()
  return lambda: compiled(*args)


def _program_bytes(compiled: jax.stages.Compiled) -> int | None:
  """Returns the memory per device of a program, if its compiler says it."""
  memory = compiled.memory_analysis()
  if memory is None:
    return None
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
