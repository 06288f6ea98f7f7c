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
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hatebm_jax import bank as bank_lib
from hatebm_jax import energy as energy_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax import sharding
from hatebm_jax.models import hat as hat_lib
from hatebm_jax.objectives.parts import base, generators, hat_learning, learner


class State(NamedTuple):
  """Everything that a run of synthesis carries from step to step.

  Attributes:
    hat: the hat's learner.
    generator: the generator's learner.
    generator_stats: batch-norm statistics: mean 0, variance 1, never updated.
    bank: the generator's pairs.
  """

  hat: learner.Learner
  generator: learner.Learner
  generator_stats: Any
  bank: bank_lib.Bank


def generator_loss(
  generator_fn: energy_lib.GeneratorFn, z: jax.Array, x: jax.Array
) -> jax.Array:
  """Cooperative loss, 1000 mean((G(z) - x)^2) over the drawn pairs."""
  return 1000 * jnp.square(generator_fn(z) - x).mean()


def make_networks(config: ml_collections.ConfigDict) -> base.Networks:
  """Returns the hat and the generator of a synthesis config."""
  size = config.data.image_size
  generator, latent_shape = generators.make(config)
  return base.Networks(
    hat=hat_lib.make(size, config.model.width, jnp.dtype(config.model.dtype)),
    generator=generator,
    variables=lambda state, weights: (
      {"params": learner.params_of(state.hat, weights)},
      generators.variables_of(state, weights),
    ),
    latent_shape=latent_shape,
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
      hat=learner.start(hat["params"], learner.make_optimizer(config.hat)),
      generator=learner.start(
        generator["params"], learner.make_optimizer(config.generator)
      ),
      generator_stats=generator["batch_stats"],
      bank=fill_bank(generator, rngs),
    )

  return init


def _make_partition_specs(config, mesh) -> Callable[[State], State]:
  """Returns how a state lies on the mesh.

  The bank is split over the devices and all else is replicated, but for
  optimizers and averages where `config.sharding.split_optimizer` is set.
  """

  def partition_specs(state):
    specs = learner.partition_specs(
      state, mesh, config.sharding.split_optimizer
    )
    return specs._replace(
      bank=bank_lib.Bank(P(sharding.AXIS), P(sharding.AXIS))
    )

  return partition_specs


def make_generator_update(
  config: ml_collections.ConfigDict, mesh: Mesh, networks: base.Networks
) -> Callable[..., tuple[learner.Learner, jax.Array]]:
  """Returns the generator's, `(generator, stats, z, x) -> (generator, loss)`.

  `generator` is a learner, `stats` its batch-norm statistics; z `[batch, ...]`
  and x `[batch, height, width, channels]` are drawn pairs of the bank.
  """
  optimizer = learner.make_optimizer(config.generator)

  def update_generator(generator, stats, z, x):
    def loss_fn(params, z, x):
      variables = {"params": params, "batch_stats": stats}
      generator_fn = lambda z: networks.generator.apply(variables, z)
      return generator_loss(generator_fn, z, x), {}

    gradient_fn = sharding.value_and_grad(loss_fn, mesh)
    (loss, _), gradients = gradient_fn(generator.params, z, x)
    decay = config.train.average_decay
    return learner.update(generator, gradients, optimizer, decay), loss

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
  chains = hat_learning.make_chains(config, mesh, networks)
  update_hat = hat_learning.make_hat_update(config, mesh, networks)
  update_generator = make_generator_update(config, mesh, networks)
  draw, write = _make_bank_use(config, mesh)
  indices = np.arange(config.train.batch_size)

  def step(state, images, rng):
    fresh = chains(
      networks.variables(state, "raw"),
      rng_lib.per_index(rng_lib.stream(rng, "chains"), indices),
    )
    x_data = hat_learning.noisy_data(config, images, rng)
    hat, metrics = update_hat(state.hat, x_data, fresh.x_sample)
    slots, z_bank, x_bank = draw(rng_lib.stream(rng, "bank"), state.bank)
    generator, loss = update_generator(
      state.generator, state.generator_stats, z_bank, x_bank
    )
    bank = write(state.bank, slots, fresh.z, fresh.x_sample)
    metrics |= {
      "generator_loss": loss,
      **hat_learning.chain_metrics(fresh),
    }
    shown = {
      "data": x_data,
      "generator": fresh.x_start,
      "hat": fresh.x_sample,
      "bank": x_bank,
    }
    state = state._replace(hat=hat, generator=generator, bank=bank)
    return state, metrics, shown

  return step
