"""The chains of a run: networks bound, chains started, run and split.

This is the one place where chains are set up. Training, sampling, film strips,
diagnostics, the benchmark and DDLS all use it. Functions that take `variables`
and `rngs` first run on one device; `over_devices` runs them on all devices,
which do not communicate inside a chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import energy as energy_lib
from hatebm_jax import errors, langevin, networks, sharding
from hatebm_jax.models import layers


class Plan(NamedTuple):
  """How fresh chains start and move.

  Attributes:
    settings: Settings of the Langevin steps.
    init_scale_z: Standard deviation of z at the start.
    init_scale_y: Standard deviation of y at the start.
  """

  settings: langevin.Settings
  init_scale_z: float = 1.0
  init_scale_y: float = 0.0


class Chains(NamedTuple):
  """Where fresh chains started and ended; the leading axis is the chain.

  Attributes:
    z: Latents at the end, `[batch, *latent_shape]`.
    x_start: Images G(z) at the start, `[batch, height, width, channels]`.
    x_sample: Images G(z) + y at the end, the same shape.
    info: Curves of the run, `[1, num_steps]`; over several devices
      `[devices, num_steps]`.
  """

  z: jax.Array
  x_start: jax.Array
  x_sample: jax.Array
  info: Any


class Replay(NamedTuple):
  """Pairs of the bank from which some chains of a training step go on.

  Attributes:
    chosen: Whether each chain goes on from its pair, booleans `[batch]`.
    z: Latents of the pairs, `[batch, *latent_shape]`.
    x: Images of the pairs, `[batch, height, width, channels]`.
  """

  chosen: jax.Array
  z: jax.Array
  x: jax.Array


def moves_z(config: ml_collections.ConfigDict) -> bool:
  """Returns whether the chains of a run move z as well as y."""
  return config.objective == "joint"


def cycle(config: ml_collections.ConfigDict) -> int:
  """Returns the length of a cycle of annealing, 1 if steps are alike.

  Training has a cycle in a chain. Longer chains repeat it.
  """
  group = config.langevin
  return 1 if group.annealing == 1 else group.num_steps


def training_plan(config: ml_collections.ConfigDict) -> Plan:
  """Returns the plan of the chains that train the hat: `config.langevin`."""
  group = config.langevin
  settings = langevin.Settings(
    num_steps=group.num_steps,
    step_size_y=group.step_size_y,
    step_size_z=group.step_size_z,
    temperature=group.temperature,
    tau=group.tau,
    max_drift_y=group.max_drift_y,
    update_z=moves_z(config),
    annealing=group.annealing,
    cycle=cycle(config),
  )
  return Plan(settings, group.init_scale_z, group.init_scale_y)


def evaluation_plan(config: ml_collections.ConfigDict) -> Plan:
  """Returns the plan of the chains that draw samples: `config.evaluate`.

  A field that is None there has the value of training. Longer chains repeat the
  annealing of training.

  Raises:
    ConfigError: If the chains would end in the middle of an annealing.
  """
  group, length = config.evaluate, cycle(config)
  if group.num_steps % length:
    raise errors.ConfigError(
      f"config.evaluate.num_steps={group.num_steps}: expected a multiple of "
      f"config.langevin.num_steps={length}, because the chains are annealed "
      f"(config.langevin.annealing={config.langevin.annealing}) and would end "
      "with large steps. Set it to "
      f"{-(-group.num_steps // length) * length}."
    )
  given = lambda name: (
    config.langevin[name] if group[name] is None else group[name]
  )
  settings = langevin.Settings(
    num_steps=group.num_steps,
    step_size_y=given("step_size_y"),
    step_size_z=given("step_size_z"),
    temperature=given("temperature"),
    tau=given("tau"),
    max_drift_y=group.max_drift_y,
    update_z=moves_z(config),
    annealing=config.langevin.annealing,
    cycle=cycle(config),
  )
  return Plan(settings, given("init_scale_z"), group.init_scale_y)


def record(settings: langevin.Settings) -> dict[str, Any]:
  """Returns settings by name, without the annealing if there is none."""
  without = ("annealing", "cycle") if settings.annealing == 1 else ()
  fields = settings._asdict().items()
  return {name: value for name, value in fields if name not in without}


def bind(
  model: networks.Networks, variables: tuple[Any, Any]
) -> tuple[energy_lib.HatFn, energy_lib.GeneratorFn]:
  """Binds parameters to the hat and the generator of a run, for its chains.

  What depends on the parameters alone is computed here, and not in every
  Langevin step.

  Args:
    model: Networks of the run; the hat may be None.
    variables: Parameters of hat and generator, from `model.variables`.

  Returns:
    The hat, images -> energies `[batch]`, and the generator, latents -> images.
  """
  hat, (hat_params, of_generator) = model.hat, variables
  if isinstance(model.generator, nn.Module):
    of_generator = layers.prepare(
      model.generator, of_generator, model.latent_shape
    )
  if hat is not None and hat.bind is not None:
    hat_fn = hat.bind(hat_params, model.image_shape)
  else:
    hat_fn = lambda x: hat.apply(hat_params, x)
  return hat_fn, lambda z: model.generator.apply(of_generator, z)


def start(
  model: networks.Networks, plan: Plan, rngs: jax.Array
) -> langevin.State:
  """Starts fresh chains, one for each of the keys `[batch]`."""
  return langevin.init_state(
    rngs,
    model.latent_shape,
    model.image_shape,
    plan.init_scale_z,
    plan.init_scale_y,
  )


def continue_from(
  generator_fn: energy_lib.GeneratorFn,
  fresh: langevin.State,
  replay: Replay,
) -> langevin.State:
  """Puts the chosen pairs of a bank in the place of fresh chains.

  The image of such a chain is that of its pair: y = x - G(z).

  Args:
    generator_fn: The generator, latents `[batch, ...]` -> images.
    fresh: State of fresh chains.
    replay: Pairs of the bank.
  """

  def choose(old, new):
    return jax.vmap(jnp.where)(replay.chosen, old, new)

  z = choose(replay.z, fresh.z)
  return langevin.State(z, choose(replay.x - generator_fn(z), fresh.y))


def advance(
  model: networks.Networks,
  plan: Plan,
  variables: tuple[Any, Any],
  rngs: jax.Array,
  state: langevin.State,
  first_step: int | jax.Array = 0,
) -> tuple[langevin.State, langevin.Info]:
  """Moves chains by `plan.settings.num_steps` Langevin steps.

  This calls the sampler: another one (MALA, underdamped, annealed) with the
  arguments of `langevin.sample` takes its place here.

  Args:
    model: Networks of the run.
    plan: Plan of the chains.
    variables: Parameters of hat and generator.
    rngs: Keys of the chains, `[batch]`.
    state: State that the chains are in.
    first_step: Number of Langevin steps that they have taken before.

  Returns:
    The new state and the curves of the run, `[num_steps]`.
  """
  hat_fn, generator_fn = bind(model, variables)
  num, full = len(rngs), model.hat.full_batch
  copies = 1 if full % num else full // num
  # Copies of a chain have the same keys, so they and the means stay the same.
  rngs, state = jax.tree.map(
    lambda leaf: jnp.concatenate([leaf] * copies), (rngs, state)
  )
  state, info = langevin.sample(
    rngs, hat_fn, generator_fn, state, plan.settings, first_step
  )
  return jax.tree.map(lambda leaf: leaf[:num], state), info


def run(
  model: networks.Networks,
  plan: Plan,
  variables: tuple[Any, Any],
  rngs: jax.Array,
  replay: Replay | None = None,
) -> Chains:
  """Runs chains from their start to their end.

  Args:
    model: Networks of the run; it has a hat.
    plan: Plan of the chains.
    variables: Parameters of hat and generator.
    rngs: Keys of the chains, `[batch]`.
    replay: Pairs from which some chains go on; None: all chains are fresh.
  """
  _, generator_fn = bind(model, variables)
  first = start(model, plan, rngs)
  if replay:
    first = continue_from(generator_fn, first, replay)
  state, info = advance(model, plan, variables, rngs, first)
  x_end = generator_fn(state.z)
  x_start = generator_fn(first.z) if plan.settings.update_z else x_end
  info = jax.tree.map(lambda curve: curve[None], info)
  return Chains(state.z, x_start, x_end + state.y, info)


def film(
  model: networks.Networks,
  plan: Plan,
  variables: tuple[Any, Any],
  rngs: jax.Array,
  num_frames: int,
) -> tuple[jax.Array, jax.Array]:
  """Runs fresh chains and keeps some of the states that they pass.

  The states lie as evenly as whole steps allow. The first one is the start, and
  the last one is the end of the chain.

  Args:
    model: Networks of the run; it has a hat.
    plan: Plan of the chains, of at least `num_frames - 1` steps.
    variables: Parameters of hat and generator.
    rngs: Keys of the chains, `[batch]`.
    num_frames: Number of states, at least 2.

  Returns:
    G(z) and y along the chains, each
    `[batch, num_frames, height, width, channels]`.
  """
  model, generator_fn, state = _start_film(model, plan, variables, rngs)
  num_steps = plan.settings.num_steps
  # Numbers of steps after which a state is kept.
  kept = -(-np.arange(num_frames) * num_steps // (num_frames - 1))
  frame_of = np.searchsorted(kept, 1 + np.arange(num_steps))
  step = plan._replace(settings=plan.settings._replace(num_steps=1))
  path = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_frames), state)

  def take(carry, at):
    (state, path), (index, frame) = carry, at
    state, _ = advance(model, step, variables, rngs, state, index)
    path = jax.tree.map(lambda all_, new: all_.at[frame].set(new), path, state)
    return (state, path), None

  # The last state of a gap is the one that stays.
  steps = jnp.arange(num_steps), frame_of
  (_, path), _ = jax.lax.scan(take, (state, path), steps)
  frames = jax.vmap(generator_fn)(path.z), path.y
  return jax.tree.map(lambda frame: frame.swapaxes(0, 1), frames)


def _start_film(model, plan, variables, rngs):
  """Returns networks, a generator and the state that a film starts from.

  Where only y moves, G(z) takes the place of z, so that G runs once.
  """
  _, generator_fn = bind(model, variables)
  state = start(model, plan, rngs)
  if plan.settings.update_z:
    return model, generator_fn, state
  same = networks.Generator(lambda _, x: x, model.image_shape)
  state = state._replace(z=generator_fn(state.z))
  return model._replace(generator=same), lambda x: x, state


def run_ddls(
  model: networks.Networks,
  discriminator_fn: energy_lib.HatFn,
  variables: tuple[Any, Any],
  rngs: jax.Array,
  num_steps: int,
  step_size: float,
) -> Chains:
  """Runs fresh chains of DDLS: Langevin steps on the latents of a GAN.

  Args:
    model: Networks of an SN-GAN run.
    discriminator_fn: The discriminator D, images -> logits `[batch]`.
    variables: Parameters, from `model.variables`; the hat's are ignored.
    rngs: Keys of the chains, `[batch]`.
    num_steps: Number of Langevin steps, one gradient each.
    step_size: Step size eps, in units of the latent.
  """
  _, generator_fn = bind(model, variables)
  first = langevin.init_state(rngs, model.latent_shape, model.image_shape)
  z, info = langevin.sample_latents(
    rngs,
    energy_lib.ddls(discriminator_fn, generator_fn),
    first.z,
    num_steps,
    step_size,
  )
  info = jax.tree.map(lambda curve: curve[None], info)
  return Chains(z, generator_fn(first.z), generator_fn(z), info)


def over_devices(
  fn: Callable[..., Any],
  mesh: Mesh,
  method: str = "shard_map",
  replicated: tuple[int, ...] = (0,),
) -> Callable[..., Any]:
  """Runs a function of chains on each device's part of the chains.

  Args:
    fn: Function `(variables, rngs, ...)` of chains, the leading axis of all
      arguments but the replicated ones.
    mesh: Mesh of the devices.
    method: `config.sharding.chains`, either `shard_map` or `pmap`.
    replicated: Positions of the arguments that every device gets whole; the
      variables are the first one.

  Returns:
    The same function of all chains.
  """
  return sharding.split(fn, mesh, replicated=replicated, method=method)
