"""An objective: a hat that learns to tell data from G(z), without chains."""

from typing import NamedTuple

import jax.numpy as jnp

from hatebm_jax import networks
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import (
  generators,
  hat_learning,
  hats,
  learner,
)
from hatebm_jax.objectives.parts.objective import Objective


class State(NamedTuple):
  """State of a run: the learner of the hat and a random generator."""

  hat: learner.Learner
  generator: dict


def make(config, mesh, hat=None):
  """Returns the objective of a config on a mesh."""
  size = config.data.image_size
  generator, latent_shape = generators.make(config)
  model = networks.Networks(
    hat=hats.make(config, hat),
    generator=generator,
    variables=lambda state, weights: (
      learner.params_of(state.hat, weights),
      state.generator,
    ),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
  )
  update_hat = hat_learning.make_hat_update(config, mesh, model)

  def init(rng):
    z = jnp.zeros((1, *latent_shape))
    variables = generator.init(rng_lib.stream(rng, "generator"), z)
    return State(hat_learning.init_hat(config, model, rng), variables)

  def step(state, images, rng):
    x_data = hat_learning.noisy_data(config, images, rng)
    rngs = rng_lib.per_index(rng, jnp.arange(len(images)))
    z = rng_lib.normal(rngs, latent_shape)
    x_sample = generator.apply(state.generator, z)
    hat, metrics = update_hat(state.hat, x_data, x_sample)
    shown = {"data": x_data, "generator": x_sample}
    return state._replace(hat=hat), metrics, shown

  specs = learner.partition_specs(config, mesh)
  return Objective(init, step, specs, networks=model)
