"""The compiled programs that the benchmark and experiments/speed time.

Each program of a part of a run is made in one place, for one form of the
convolutions: the one of the config.
"""

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
from hatebm_jax import flops, langevin, objectives, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import synthesis
from hatebm_jax.objectives.parts import hat_learning

SHORT = 2  # Langevin steps of the shorter one of two programs
_JOINT_LONG = 8  # most Langevin steps of the longer one of the joint form
_MATRIX = 2048  # rows and columns of the product that measures the machine


class Program(NamedTuple):
  """A compiled program.

  Attributes:
    call: Call without arguments.
    compile_seconds: Seconds to trace and to compile the program.
    num_bytes: Memory per device, or None if the compiler does not say it.
  """

  call: Callable[[], Any]
  compile_seconds: float
  num_bytes: int | None


def lengths(config: ml_collections.ConfigDict) -> dict[str, tuple[int, int]]:
  """Returns the Langevin steps of the short and the long program of a chain.

  The long training step has those of the config. In the joint form only the
  difference between the two programs counts, so both stay short.

  Args:
    config: Config of a synthesis.
  """
  num_steps = config.langevin.num_steps
  return {
    "step": (SHORT, num_steps),
    "joint": (SHORT, min(num_steps, _JOINT_LONG)),
  }


def start(config: ml_collections.ConfigDict, mesh: Mesh) -> synthesis.State:
  """Returns the state of a new run; it is the same in all forms and precisions.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
  """
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  return compile_lib.init_state(config, objective, abstract)


def copy(state: synthesis.State) -> list[synthesis.State]:
  """Returns a list of a copy of the state, which training steps may use up."""
  return [jax.tree.map(jnp.copy, state)]


def compile_all(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  state: synthesis.State,
  kept: list[synthesis.State],
) -> dict[str, Program]:
  """Compiles all programs of the benchmark in the form of the config.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    state: State of the run.
    kept: List of a copy of the state, which the training steps train.

  Returns:
    The programs by their names.
  """
  programs = {
    "hat_update": hat_update(config, mesh, state),
    "generator_update": generator_update(config, mesh, state),
  }
  of = chain_configs(config)
  for name in ("step_short", "step_long"):
    programs[name] = training_step(of[name], mesh, kept)
  for name in ("joint_short", "joint_long"):
    programs[name] = joint_steps(of[name], mesh, state)
  return programs


def chain_configs(
  config: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the configs of the short and the long programs of chains.

  Args:
    config: Config of a synthesis. It is not changed.
  """
  configs = {}
  for name, pair in lengths(config).items():
    for length, num_steps in zip(("short", "long"), pair, strict=True):
      changed = config.copy_and_resolve_references()
      changed.langevin.num_steps = num_steps
      configs[f"{name}_{length}"] = changed
  return configs


def least_gflop(config: ml_collections.ConfigDict) -> dict[str, float]:
  """Returns the GFLOP that a call of each program needs at least.

  Args:
    config: Config of a synthesis.
  """
  long = flops.training_step(config)
  short, num_steps = lengths(config)["step"]
  step_short = long - (num_steps - short) * flops.langevin_step(config)
  joint_short, joint_long = (
    num_steps * flops.langevin_step(config, joint=True)
    for num_steps in lengths(config)["joint"]
  )
  counts = {
    "hat_update": flops.hat_update(config),
    "generator_update": flops.generator_update(config),
    "step_short": step_short,
    "step_long": long,
    "joint_short": joint_short,
    "joint_long": joint_long,
  }
  return {name: count / 1e9 for name, count in counts.items()}


def matrix_product(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> tuple[Program, float]:
  """Compiles a square matrix product on every device.

  Args:
    config: Config whose networks' dtype the product has.
    mesh: Mesh of the devices.

  Returns:
    The program, and its GFLOP over all devices.
  """
  shape = mesh.size, _MATRIX, _MATRIX
  a = jax.random.normal(jax.random.key(0), shape, jnp.dtype(config.model.dtype))
  split = sharding.split(lambda a, b: a[0][None] @ b[0], mesh)
  return bind(split, a, a), 2 * _MATRIX**3 * mesh.size / 1e9


def training_step(
  config: ml_collections.ConfigDict, mesh: Mesh, kept: list[synthesis.State]
) -> Program:
  """Compiles the whole training step.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    kept: List of one state. A call uses it up and puts the new one there.
  """
  objective = objectives.make(config, mesh)
  shape = (config.data.image_size, config.data.image_size, config.data.channels)
  rows = config.train.batch_size // jax.process_count()
  noise = np.random.default_rng(0).integers(0, 256, (1, rows, *shape))
  images = sharding.global_batches(noise.astype(np.uint8), mesh)
  rng, steps = jax.random.key(config.seed), np.arange(1)
  step = compile_lib.compile_steps(objective, kept[0])
  compiled, seconds = _compile(step, kept[0], images, rng, steps)

  def call():
    kept[0], metrics, _ = compiled(kept[0], images, rng, steps)
    return metrics

  return Program(call, seconds, _num_bytes(compiled))


def joint_steps(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Program:
  """Compiles chains that move z too, with the scales of refinement.

  Args:
    config: Config of a synthesis. The chains have its number of steps.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  networks = synthesis.make_networks(config)
  settings = langevin.Settings(
    config.langevin.num_steps,
    1e-4,
    5e-3,
    temperature=1e-3,
    max_drift_y=2.5,
    update_z=True,
  )
  plan = chains_lib.Plan(settings)

  def run(variables, rngs):
    first = chains_lib.start(networks, plan, rngs)
    return chains_lib.advance(networks, plan, variables, rngs, first)[0]

  rngs = rng_lib.per_index(
    jax.random.key(0), jnp.arange(config.train.batch_size)
  )
  return bind(
    chains_lib.over_devices(run, mesh), networks.variables(state, "raw"), rngs
  )


def hat_update(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Program:
  """Compiles the update of the hat.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  update, _, x, _ = update_functions(config, mesh)
  return bind(update, state.hat, x, 0.5 * x)


def generator_update(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> Program:
  """Compiles the update of the generator.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    state: State of the run.
  """
  _, update, x, z = update_functions(config, mesh)
  return bind(update, state.generator, state.generator_stats, z, x)


def update_functions(
  config: ml_collections.ConfigDict, mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any], jax.Array, jax.Array]:
  """Returns what the updates of hat and generator are compiled from.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.

  Returns:
    Both updates, images `[batch, height, width, channels]` and latents
    `[batch, ...]`.
  """
  networks = synthesis.make_networks(config)
  batch = (config.train.batch_size, *networks.image_shape)
  x = jax.random.uniform(jax.random.key(1), batch, minval=-1.0)
  z = jax.random.normal(jax.random.key(2), (batch[0], *networks.latent_shape))
  return (
    hat_learning.make_hat_update(config, mesh, networks),
    synthesis.make_generator_update(config, mesh, networks),
    x,
    z,
  )


def bind(fn: Callable[..., Any], *args: Any) -> Program:
  """Compiles a function for its arguments.

  Args:
    fn: Function of arrays.
    *args: Arguments of every call.
  """
  compiled, seconds = _compile(jax.jit(fn), *args)
  return Program(lambda: compiled(*args), seconds, _num_bytes(compiled))


def _compile(jitted: Any, *args: Any) -> tuple[jax.stages.Compiled, float]:
  """Returns the compiled function, and the seconds that this took."""
  begun = time.perf_counter()
  compiled = jitted.lower(*args).compile()
  return compiled, time.perf_counter() - begun


def _num_bytes(compiled: jax.stages.Compiled) -> int | None:
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
