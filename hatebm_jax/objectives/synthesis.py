"""Synthesis: a conditional Hat EBM and a generator, learned side by side.

The hat learns by maximum likelihood from short-run chains in y, which start at
y = 0 on fresh images G(z). The generator learns cooperatively, from a bank of
what past chains made of its images (Hat EBM, sections 3.3 and 4.3). Chains may
also go on from pairs of the bank (`config.langevin.replay_share`), which the
paper does not do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hatebm_jax import bank as bank_lib
from hatebm_jax import chains as chains_lib
from hatebm_jax import energy as energy_lib
from hatebm_jax import networks, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import (
  generators,
  hat_learning,
  hats,
  learner,
)
from hatebm_jax.objectives.parts.objective import Objective


class State(NamedTuple):
  """Everything that a run of synthesis carries from step to step.

  Attributes:
    hat: Learner of the hat.
    generator: Learner of the generator.
    generator_stats: Batch-norm statistics of the generator: mean 0, variance 1,
      never updated.
    bank: Pairs that the generator learns from.
  """

  hat: learner.Learner
  generator: learner.Learner
  generator_stats: Any
  bank: bank_lib.Bank


def generator_loss(
  generator_fn: energy_lib.GeneratorFn, z: jax.Array, x: jax.Array
) -> jax.Array:
  """Cooperative loss, 1000 mean((G(z) - x)^2) over the drawn pairs.

  Args:
    generator_fn: The generator, latents `[batch, ...]` -> images.
    z: Latents `[batch, ...]`.
    x: Images of the pairs `[batch, height, width, channels]`.
  """
  return 1000 * jnp.square(generator_fn(z) - x).mean()


def make_networks(
  config: ml_collections.ConfigDict, hat: networks.Hat | None = None
) -> networks.Networks:
  """Returns the hat and the generator of a synthesis config.

  Args:
    config: Config of the run.
    hat: Hat of the user's own; None: the hat of the config.
  """
  size = config.data.image_size
  generator, latent_shape = generators.make(config)
  return networks.Networks(
    hat=hats.make(config, hat),
    generator=generator,
    variables=lambda state, weights: (
      learner.params_of(state.hat, weights),
      generators.variables_of(state, weights),
    ),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
  )


def make(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  hat: networks.Hat | None = None,
) -> Objective:
  """Returns the objective of a synthesis config on a mesh.

  Args:
    config: Config of the run.
    mesh: Mesh of the run.
    hat: Hat of the user's own; None: the hat of the config.

  Raises:
    ConfigError: If the bank is smaller than the batch.
  """
  # The devices of the mesh matter to training alone.
  bank_lib.layout(config.generator.bank_size, config.train.batch_size, 1)
  model = make_networks(config, hat)
  refill = _make_refill(config, mesh, model)
  return Objective(
    init=_make_init(config, model, refill),
    step=_make_step(config, mesh, model),
    partition_specs=_make_partition_specs(config, mesh),
    networks=model,
    resume=_make_resume(config, mesh),
    restart=refill,
  )


def _make_refill(config, mesh, model) -> Callable[[jax.Array, State], State]:
  """Returns `(rng, state) -> state`, which fills the bank with new images."""

  def fill_bank(generator, rngs, slots):
    return sharding.split(
      lambda variables, rngs: bank_lib.init(
        lambda z: model.generator.apply(variables, z),
        rng_lib.normal(rngs, (slots, *model.latent_shape)),
        chunk=config.train.batch_size // mesh.size,
      ),
      mesh,
      replicated=(0,),
    )(generator, rngs)

  def refill(rng, state):
    partitions, slots = bank_lib.layout(
      config.generator.bank_size, config.train.batch_size, mesh.size
    )
    rngs = rng_lib.per_index(
      rng_lib.stream(rng, "bank"), jnp.arange(partitions)
    )
    generator = generators.variables_of(state, "raw")
    return state._replace(bank=fill_bank(generator, rngs, slots))

  return refill


def _make_init(config, model, refill) -> Callable[[jax.Array], State]:
  """Returns the initialisation of `make`."""

  def init(rng):
    hat = hat_learning.init_hat(config, model, rng)
    generator = model.generator.init(
      rng_lib.stream(rng, "generator"), jnp.zeros((1, *model.latent_shape))
    )
    state = State(
      hat=hat,
      generator=learner.start(
        generator["params"], learner.make_optimizer(config.generator)
      ),
      generator_stats=generator["batch_stats"],
      bank=None,
    )
    return refill(rng, state)

  return init


def _make_partition_specs(config, mesh) -> Callable[[State], State]:
  """Returns how a state lies on the mesh; the devices share the bank."""
  of_learners = learner.partition_specs(config, mesh)

  def partition_specs(state):
    return of_learners(state)._replace(
      bank=bank_lib.Bank(P(sharding.AXIS), P(sharding.AXIS))
    )

  return partition_specs


def _make_resume(config, mesh) -> Callable[..., State]:
  """Returns the function of `make` that reads a checkpoint."""
  sizes = config.generator.bank_size, config.train.batch_size

  def resume(read, abstract, shapes):
    stored = bank_lib.as_stored(
      abstract.bank, shapes.get("bank/z", ()), *sizes, mesh
    )
    state = read(abstract._replace(bank=stored))
    if bank_lib.fits(stored, mesh):
      return state
    old, new = stored.z.shape[:2], abstract.bank.z.shape[:2]
    if jax.process_index() == 0:
      print(
        f"The bank was laid out for other devices, in {old[0]} partitions of "
        f"{old[1]} pairs. Now it has {new[0]} partitions of {new[1]} pairs.",
        flush=True,
      )
    return state._replace(bank=bank_lib.lay_out(state.bank, abstract.bank))

  return resume


def make_generator_update(
  config: ml_collections.ConfigDict, mesh: Mesh, model: networks.Networks
) -> Callable[..., tuple[learner.Learner, jax.Array]]:
  """Returns the generator's update.

  Args:
    config: Config of the run.
    mesh: Mesh of the run.
    model: Networks of the run.

  Returns:
    A function `(generator, stats, z, x) -> (generator, loss)`. `generator` is a
    learner and `stats` its batch-norm statistics; z `[batch, ...]` and x
    `[batch, height, width, channels]` are pairs that were drawn from the bank.
  """
  optimizer = learner.make_optimizer(config.generator)

  def update_generator(generator, stats, z, x):
    def loss_fn(params, z, x):
      variables = {"params": params, "batch_stats": stats}
      generator_fn = lambda z: model.generator.apply(variables, z)
      return generator_loss(generator_fn, z, x), {}

    gradient_fn = sharding.value_and_grad(loss_fn, mesh)
    (loss, _), gradients = gradient_fn(generator.params, z, x)
    decay = config.train.average_decay
    return learner.update(generator, gradients, optimizer, decay), loss

  return update_generator


def _make_bank_use(config, mesh) -> tuple[Callable[..., Any], ...]:
  """Returns `bank.draw`, which draws a batch from one key, and `bank.write`."""

  def draw(rng, bank):
    # A resumed run may have the layout of other devices.
    partitions = bank.z.shape[0]
    num = config.train.batch_size // partitions
    split_draw = sharding.split(
      lambda rngs, bank: bank_lib.draw(rngs, bank, num), mesh
    )
    return split_draw(rng_lib.per_index(rng, jnp.arange(partitions)), bank)

  return draw, sharding.split(bank_lib.write, mesh)


def _choose_replay(
  config, step, rng, z_bank, x_bank
) -> chains_lib.Replay | None:
  """Chooses the chains of a training step that go on from the bank."""
  group = config.langevin
  if not group.replay_share:
    return None
  share = jnp.where(step < group.replay_from, 0, group.replay_share)
  chosen = jax.random.bernoulli(
    rng_lib.stream(rng, "replay"), share, (config.train.batch_size,)
  )
  return chains_lib.Replay(chosen, z_bank, x_bank)


def _make_step(config, mesh, model) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  chains = hat_learning.make_chains(config, mesh, model)
  update_hat = hat_learning.make_hat_update(config, mesh, model)
  update_generator = make_generator_update(config, mesh, model)
  draw, write = _make_bank_use(config, mesh)

  def step(state, images, rng):
    slots, z_bank, x_bank = draw(rng_lib.stream(rng, "bank"), state.bank)
    replay = _choose_replay(
      config, learner.num_updates(state.hat), rng, z_bank, x_bank
    )
    done = chains(model.variables(state, "raw"), rng, replay)
    x_data = hat_learning.noisy_data(config, images, rng)
    hat, metrics = update_hat(state.hat, x_data, done.x_sample)
    generator, loss = update_generator(
      state.generator, state.generator_stats, z_bank, x_bank
    )
    bank = write(state.bank, slots, done.z, done.x_sample)
    metrics |= {
      "generator_loss": loss,
      **hat_learning.chain_metrics(done),
    }
    shown = {
      "data": x_data,
      "generator": done.x_start,
      "hat": done.x_sample,
      "bank": x_bank,
    }
    state = state._replace(hat=hat, generator=generator, bank=bank)
    return state, metrics, shown

  return step
