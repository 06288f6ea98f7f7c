"""The joint form: a hat on a frozen generator, whose chains move z and y.

It refines the generator of a GAN, retrofits the decoder of a deterministic
autoencoder, or puts a hat on any generator that is given (Hat EBM, sections 3.1
and 3.2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import networks
from hatebm_jax.objectives.parts import (
  generators,
  hat_learning,
  hats,
  learner,
)
from hatebm_jax.objectives.parts.objective import Objective


class State(NamedTuple):
  """Everything that a joint run carries from step to step.

  Attributes:
    hat: Learner of the hat.
    generator: Variables of the generator, never updated.
  """

  hat: learner.Learner
  generator: Any


def make(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  hat: networks.Hat | None = None,
  generator: networks.Generator | None = None,
) -> Objective:
  """Returns the objective of a joint config on a mesh.

  Args:
    config: Config of the run.
    mesh: Mesh of the run.
    hat: Hat of the user's own; None: the hat of the config.
    generator: Generator of the user's own; None: the one that
      `config.generator` describes, with the weights of its source.

  Raises:
    ConfigError: If a network does not fit the images of the config.
  """
  if generator is None:
    module, latent_shape = generators.make(config)
    frozen = generators.abstract_variables(module, latent_shape)
    load = lambda: (generators.load(config, module, latent_shape),)
  else:
    module, latent_shape = generator, generator.latent_shape
    frozen = jax.tree.map(_abstract, generator.variables)
    load = lambda: (generator.variables,)
  size = config.data.image_size
  model = networks.Networks(
    hat=hats.make(config, hat),
    generator=module,
    variables=lambda state, weights: (
      learner.params_of(state.hat, weights),
      state.generator,
    ),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
  )
  networks.check_generator(
    module.apply, frozen, latent_shape, model.image_shape
  )
  return Objective(
    init=_make_init(config, model),
    step=_make_step(config, mesh, model),
    partition_specs=learner.partition_specs(config, mesh),
    networks=model,
    frozen=(frozen,),
    load_frozen=load,
  )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  """Returns the shape and dtype of a leaf of any kind."""
  return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _make_init(config, model) -> Callable[..., State]:
  """Returns the initialisation of `make`."""

  def init(rng, generator_variables):
    hat = hat_learning.init_hat(config, model, rng)
    return State(hat=hat, generator=generator_variables)

  return init


def _make_step(config, mesh, model) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  chains = hat_learning.make_chains(config, mesh, model)
  update_hat = hat_learning.make_hat_update(config, mesh, model)

  def step(state, images, rng):
    fresh = chains(model.variables(state, "raw"), rng)
    x_data = hat_learning.noisy_data(config, images, rng)
    hat, metrics = update_hat(state.hat, x_data, fresh.x_sample)
    z = fresh.z.reshape(len(fresh.z), -1)
    metrics |= {
      "drift_norm_z": fresh.info.drift_norm_z.mean(),
      "norm_z": jnp.linalg.norm(z, axis=1).mean(),
      **hat_learning.chain_metrics(fresh),
    }
    shown = {
      "data": x_data,
      "generator": fresh.x_start,
      "hat": fresh.x_sample,
    }
    return state._replace(hat=hat), metrics, shown

  return step
