"""Synthesis: a conditional Hat EBM and a generator, learned side by side.

The hat learns by maximum likelihood from short-run chains in y that start at
y = 0 on fresh G(z); the generator learns cooperatively, from a bank of what
past chains made of its images (Hat EBM, sections 3.3 and 4.3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hatebm_jax import bank as bank_lib
from hatebm_jax import data, langevin, optim, sharding
from hatebm_jax import energy as energy_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import generator as generator_lib
from hatebm_jax.models import hat as hat_lib
from hatebm_jax.objectives import base


class Learner(NamedTuple):
  """A network's parameters and what its optimizer keeps.

  Attributes:
    params: float32, the raw weights.
    average: running average of them.
    optimizer: optax state.
  """

  params: optax.Params
  average: optax.Params
  optimizer: optax.OptState


class State(NamedTuple):
  """Everything that a run of synthesis carries from step to step.

  Attributes:
    hat: the hat's learner.
    generator: the generator's learner.
    generator_stats: batch-norm statistics: mean 0, variance 1, never updated.
    bank: the generator's pairs.
  """

  hat: Learner
  generator: Learner
  generator_stats: Any
  bank: bank_lib.Bank


def hat_loss(
  hat_fn: energy_lib.HatFn,
  x_data: jax.Array,
  x_sample: jax.Array,
  temperature: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Maximum-likelihood loss, (mean H(x_data) - mean H(x_sample)) / T.

  Args:
    hat_fn: images -> energies `[batch]`.
    x_data: real images `[batch, height, width, channels]`.
    x_sample: images of the chains, held constant; the same shape.
    temperature: T.

  Returns:
    The loss, and the mean energies of both batches (not divided by T).
  """
  # Two passes, not one over both batches: where a channel is active everywhere,
  # the gradients of its bias then cancel exactly. Summed in one pass they leave
  # rounding noise, which 1/T magnifies and Adam turns into whole steps.
  energy_data = hat_fn(x_data).mean()
  energy_sample = hat_fn(x_sample).mean()
  loss = (energy_data - energy_sample) / temperature
  return loss, {"energy_data": energy_data, "energy_sample": energy_sample}


def generator_loss(
  generator_fn: energy_lib.GeneratorFn, z: jax.Array, x: jax.Array
) -> jax.Array:
  """Cooperative loss, 1000 mean((G(z) - x)^2) over the drawn pairs."""
  return 1000 * jnp.square(generator_fn(z) - x).mean()


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


def train_settings(config: ml_collections.ConfigDict) -> langevin.Settings:
  """Returns the settings of the chains that train the hat."""
  return langevin.Settings(
    num_steps=config.langevin.num_steps,
    step_size_y=config.langevin.step_size_y,
    temperature=config.langevin.temperature,
    tau=config.langevin.tau,
    max_drift_y=config.langevin.max_drift_y,
  )


def _optimizer(
  group: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Returns the optimizer of a network, from its group of the config."""
  return optim.adam(
    group.learning_rate, group.learning_rate_drops, group.max_grad_norm
  )


def make_networks(config: ml_collections.ConfigDict) -> base.Networks:
  """Returns the hat and the generator of a synthesis config."""
  size, dtype = config.data.image_size, jnp.dtype(config.model.dtype)
  hat = hat_lib.make(size, config.model.width, dtype)
  generator = generator_lib.make(
    size,
    config.model.width,
    channels=config.data.channels,
    out_factor=config.generator.out_factor,
    dtype=dtype,
  )

  def variables(state, weights):
    part = {"raw": "params", "averaged": "average"}[weights]
    return (
      {"params": getattr(state.hat, part)},
      {
        "params": getattr(state.generator, part),
        "batch_stats": state.generator_stats,
      },
    )

  return base.Networks(
    hat=hat,
    generator=generator,
    variables=variables,
    latent_shape=(config.model.latent_size,),
    image_shape=(size, size, config.data.channels),
  )


def make(config: ml_collections.ConfigDict, mesh: Mesh) -> base.Objective:
  """Returns the objective of a synthesis config on a mesh."""
  networks = make_networks(config)
  return base.Objective(
    init=_make_init(config, mesh, networks),
    step=_make_step(config, mesh, networks),
    partition_specs=_make_partition_specs(config, mesh),
    networks=networks,
  )


def _make_init(config, mesh, networks) -> Callable[[jax.Array], State]:
  """Returns the initialisation of `make`."""
  partitions, slots = bank_lib.layout(
    config.generator.bank_size, config.train.batch_size, mesh.size
  )
  fill_bank = sharding.split(
    lambda variables, rngs: bank_lib.init(
      lambda z: networks.generator.apply(variables, z),
      rng_lib.normal(rngs, (slots, *networks.latent_shape)),
      chunk=config.train.batch_size // mesh.size,
    ),
    mesh,
    replicated=(0,),
  )

  def start_learner(params, group):
    return Learner(params, params, _optimizer(group).init(params))

  def init(rng):
    hat = networks.hat.init(
      rng_lib.stream(rng, "hat"), jnp.zeros((1, *networks.image_shape))
    )
    generator = networks.generator.init(
      rng_lib.stream(rng, "generator"), jnp.zeros((1, *networks.latent_shape))
    )
    rngs = rng_lib.per_index(
      rng_lib.stream(rng, "bank"), jnp.arange(partitions)
    )
    return State(
      hat=start_learner(hat["params"], config.hat),
      generator=start_learner(generator["params"], config.generator),
      generator_stats=generator["batch_stats"],
      bank=fill_bank(generator, rngs),
    )

  return init


def _make_partition_specs(config, mesh) -> Callable[[State], State]:
  """Returns how a state lies on the mesh.

  The bank is split over the devices and all else is replicated, but for
  optimizers and averages where `config.sharding.split_optimizer` is set.
  """

  def kept(tree):
    if not config.sharding.split_optimizer:
      return jax.tree.map(lambda _: P(), tree)
    return jax.tree.map(lambda a: sharding.largest_axis(a.shape, mesh), tree)

  def partition_specs(state):
    learners = {
      name: Learner(
        params=jax.tree.map(lambda _: P(), learner.params),
        average=kept(learner.average),
        optimizer=kept(learner.optimizer),
      )
      for name, learner in (("hat", state.hat), ("generator", state.generator))
    }
    return State(
      **learners,
      generator_stats=jax.tree.map(lambda _: P(), state.generator_stats),
      bank=bank_lib.Bank(P(sharding.AXIS), P(sharding.AXIS)),
    )

  return partition_specs


def _make_chains(config, mesh, networks) -> Callable[..., Any]:
  """Returns `(variables, rngs) -> (z, G(z), x_sample, info)`, by chain."""
  settings = train_settings(config)

  def chains(variables, rngs):
    hat_variables, generator_variables = variables
    generator_fn = lambda z: networks.generator.apply(generator_variables, z)
    state = langevin.init_state(
      rngs,
      networks.latent_shape,
      networks.image_shape,
      config.langevin.init_scale_z,
      config.langevin.init_scale_y,
    )
    state, info = langevin.sample(
      rngs,
      lambda x: networks.hat.apply(hat_variables, x),
      generator_fn,
      state,
      settings,
    )
    x_generated = generator_fn(state.z)
    info = jax.tree.map(lambda curve: curve[None], info)
    return state.z, x_generated, x_generated + state.y, info

  return sharding.split(
    chains, mesh, replicated=(0,), method=config.sharding.chains
  )


def make_hat_update(
  config: ml_collections.ConfigDict, mesh: Mesh, networks: base.Networks
) -> Callable[..., tuple[Learner, base.Metrics]]:
  """Returns the hat's update, `(hat, x_data, x_sample) -> (hat, metrics)`.

  `hat` is a learner; the images are global batches `[batch, height, width,
  channels]`, split over the devices.
  """
  optimizer = _optimizer(config.hat)
  gradient_fn = sharding.value_and_grad(
    lambda params, x_data, x_sample: hat_loss(
      lambda x: networks.hat.apply({"params": params}, x),
      x_data,
      x_sample,
      config.langevin.temperature,
    ),
    mesh,
  )

  def update_hat(hat, x_data, x_sample):
    (loss, energies), gradients = gradient_fn(hat.params, x_data, x_sample)
    hat = update(hat, gradients, optimizer, config.train.average_decay)
    gap = energies["energy_data"] - energies["energy_sample"]
    return hat, {"hat_loss": loss, **energies, "energy_gap": gap}

  return update_hat


def make_generator_update(
  config: ml_collections.ConfigDict, mesh: Mesh, networks: base.Networks
) -> Callable[..., tuple[Learner, jax.Array]]:
  """Returns the generator's, `(generator, stats, z, x) -> (generator, loss)`.

  `generator` is a learner, `stats` its batch-norm statistics; z `[batch, ...]`
  and x `[batch, height, width, channels]` are drawn pairs of the bank.
  """
  optimizer = _optimizer(config.generator)

  def update_generator(generator, stats, z, x):
    def loss_fn(params, z, x):
      variables = {"params": params, "batch_stats": stats}
      generator_fn = lambda z: networks.generator.apply(variables, z)
      return generator_loss(generator_fn, z, x), {}

    gradient_fn = sharding.value_and_grad(loss_fn, mesh)
    (loss, _), gradients = gradient_fn(generator.params, z, x)
    decay = config.train.average_decay
    return update(generator, gradients, optimizer, decay), loss

  return update_generator


def _make_bank_use(config, mesh) -> tuple[Callable[..., Any], ...]:
  """Returns `bank.draw` of a batch, from one key, and `bank.write`."""
  batch_size = config.train.batch_size
  partitions, _ = bank_lib.layout(
    config.generator.bank_size, batch_size, mesh.size
  )
  split_draw = sharding.split(
    lambda rngs, bank: bank_lib.draw(rngs, bank, batch_size // partitions), mesh
  )

  def draw(rng, bank):
    return split_draw(rng_lib.per_index(rng, jnp.arange(partitions)), bank)

  return draw, sharding.split(bank_lib.write, mesh)


def _make_step(config, mesh, networks) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  chains = _make_chains(config, mesh, networks)
  update_hat = make_hat_update(config, mesh, networks)
  update_generator = make_generator_update(config, mesh, networks)
  draw, write = _make_bank_use(config, mesh)
  indices = np.arange(config.train.batch_size)

  def step(state, images, rng):
    z, x_generated, x_sample, info = chains(
      networks.variables(state, "raw"),
      rng_lib.per_index(rng_lib.stream(rng, "chains"), indices),
    )
    x_data = data.to_float(images)
    x_data += config.hat.data_epsilon * jax.random.normal(
      rng_lib.stream(rng, "data"), x_data.shape
    )
    hat, metrics = update_hat(state.hat, x_data, x_sample)
    slots, z_bank, x_bank = draw(rng_lib.stream(rng, "bank"), state.bank)
    generator, loss = update_generator(
      state.generator, state.generator_stats, z_bank, x_bank
    )
    bank = write(state.bank, slots, z, x_sample)
    metrics |= {
      "generator_loss": loss,
      "drift_norm_y": info.drift_norm_y.mean(),
      "saturation": (jnp.abs(x_sample) > 1).mean(),
    }
    shown = {
      "data": x_data,
      "generator": x_generated,
      "hat": x_sample,
      "bank": x_bank,
    }
    state = state._replace(hat=hat, generator=generator, bank=bank)
    return state, metrics, shown

  return step
