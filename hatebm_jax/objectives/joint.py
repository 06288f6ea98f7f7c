"""The joint form: a hat on a frozen generator; chains move z and y.

Refinement of a GAN's generator, retrofit of a deterministic autoencoder's
decoder, or a hat on any generator that is given (Hat EBM, sections 3.1, 3.2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import errors
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import hat as hat_lib
from hatebm_jax.objectives.parts import base, generators, hat_learning, learner


class State(NamedTuple):
  """Everything that a joint run carries from step to step.

  Attributes:
    hat: the hat's learner.
    generator: variables of the generator; never updated.
  """

  hat: learner.Learner
  generator: Any


def make(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  generator: base.Generator | None = None,
) -> base.Objective:
  """Returns the objective of a joint config on a mesh.

  Args:
    config: of the run.
    mesh: of the run.
    generator: to put the hat on; None: the one that `config.generator`
      describes, with the weights of its source.

  Raises:
    ConfigError: if the generator that is given makes other images than the
      config says.
  """
  if generator is None:
    module, latent_shape = generators.make(config)
    frozen = generators.abstract_variables(module, latent_shape)
    load = lambda: (generators.load(config, module, latent_shape),)
  else:
    module, latent_shape = generator, generator.latent_shape
    frozen = jax.tree.map(_abstract, generator.variables)
    load = lambda: (generator.variables,)
  networks = _make_networks(config, module, latent_shape)
  _check_images(networks, frozen)
  return base.Objective(
    init=_make_init(config, networks),
    step=_make_step(config, mesh, networks),
    partition_specs=lambda state: learner.partition_specs(
      state, mesh, config.sharding.split_optimizer
    ),
    networks=networks,
    frozen=(frozen,),
    load_frozen=load,
  )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _make_networks(config, generator, latent_shape) -> base.Networks:
  """Returns a hat for the config's images, beside the generator."""
  size = config.data.image_size
  return base.Networks(
    hat=hat_lib.make(size, config.model.width, jnp.dtype(config.model.dtype)),
    generator=generator,
    variables=lambda state, weights: (
      {"params": learner.params_of(state.hat, weights)},
      state.generator,
    ),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
  )


def _check_images(networks: base.Networks, variables: Any) -> None:
  """Raises a ConfigError unless G makes images of the config's shape."""
  z = jax.ShapeDtypeStruct((2, *networks.latent_shape), jnp.float32)
  found = jax.eval_shape(networks.generator.apply, variables, z)
  expected = (2, *networks.image_shape)
  if found.shape != expected or found.dtype != jnp.float32:
    raise errors.ConfigError(
      f"The generator makes {found.dtype} {found.shape} of two latents, "
      f"expected float32 {expected}: set config.data.image_size and "
      "config.data.channels as it makes them, or give another generator."
    )


def _make_init(config, networks) -> Callable[..., State]:
  """Returns the initialisation of `make`."""

  def init(rng, generator_variables):
    hat = networks.hat.init(
      rng_lib.stream(rng, "hat"), jnp.zeros((1, *networks.image_shape))
    )
    optimizer = learner.make_optimizer(config.hat)
    return State(
      hat=learner.start(hat["params"], optimizer),
      generator=generator_variables,
    )

  return init


def _make_step(config, mesh, networks) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  chains = hat_learning.make_chains(config, mesh, networks)
  update_hat = hat_learning.make_hat_update(config, mesh, networks)
  indices = np.arange(config.train.batch_size)

  def step(state, images, rng):
    fresh = chains(
      networks.variables(state, "raw"),
      rng_lib.per_index(rng_lib.stream(rng, "chains"), indices),
    )
    x_data = hat_learning.noisy_data(config, images, rng)
    hat, metrics = update_hat(state.hat, x_data, fresh.x_sample)
    z = fresh.z.reshape(len(indices), -1)
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
