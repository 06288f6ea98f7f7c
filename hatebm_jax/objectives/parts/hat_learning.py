"""How a hat learns, whatever the generator: fresh chains, maximum likelihood.

Synthesis (only y moves) and the joint form (z moves too) share it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import energy as energy_lib
from hatebm_jax import langevin, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import base, learner


class Chains(NamedTuple):
  """Where fresh chains started and ended; leading axis: the chain.

  Attributes:
    z: final latents.
    x_start: G(z) at the start, `[batch, height, width, channels]`.
    x_sample: final G(z) + y.
    info: curves, `[devices, num_steps]`.
  """

  z: jax.Array
  x_start: jax.Array
  x_sample: jax.Array
  info: langevin.Info


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


def train_settings(config: ml_collections.ConfigDict) -> langevin.Settings:
  """Returns the settings of the chains that train the hat."""
  return langevin.Settings(
    num_steps=config.langevin.num_steps,
    step_size_y=config.langevin.step_size_y,
    step_size_z=config.langevin.step_size_z,
    temperature=config.langevin.temperature,
    tau=config.langevin.tau,
    max_drift_y=config.langevin.max_drift_y,
    update_z=moves_z(config),
  )


def moves_z(config: ml_collections.ConfigDict) -> bool:
  """Says whether the run's chains move z too."""
  return config.objective == "joint"


def make_chains(
  config: ml_collections.ConfigDict, mesh: Mesh, networks: base.Networks
) -> Callable[..., Chains]:
  """Returns `(variables, rngs) -> Chains`: fresh ones, a key each.

  `variables` are those of hat and generator, as from `networks.variables`.
  """
  settings = train_settings(config)

  def chains(variables, rngs):
    hat_variables, generator_variables = variables
    generator_fn = lambda z: networks.generator.apply(generator_variables, z)
    start = langevin.init_state(
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
      start,
      settings,
    )
    x_end = generator_fn(state.z)
    x_start = generator_fn(start.z) if settings.update_z else x_end
    info = jax.tree.map(lambda curve: curve[None], info)
    return Chains(state.z, x_start, x_end + state.y, info)

  return sharding.split(
    chains, mesh, replicated=(0,), method=config.sharding.chains
  )


def noisy_data(
  config: ml_collections.ConfigDict, images: jax.Array, rng: jax.Array
) -> jax.Array:
  """Returns uint8 images in [-1, 1], with the noise that the hat sees."""
  x_data = pixels.to_float(images)
  return x_data + config.hat.data_epsilon * jax.random.normal(
    rng_lib.stream(rng, "data"), x_data.shape
  )


def make_hat_update(
  config: ml_collections.ConfigDict, mesh: Mesh, networks: base.Networks
) -> Callable[..., tuple[learner.Learner, base.Metrics]]:
  """Returns the hat's update, `(hat, x_data, x_sample) -> (hat, metrics)`.

  `hat` is a learner; the images are global batches `[batch, height, width,
  channels]`, split over the devices.
  """
  optimizer = learner.make_optimizer(config.hat)
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
    hat = learner.update(hat, gradients, optimizer, config.train.average_decay)
    gap = energies["energy_data"] - energies["energy_sample"]
    return hat, {"hat_loss": loss, **energies, "energy_gap": gap}

  return update_hat


def chain_metrics(chains: Chains) -> base.Metrics:
  """Returns what there is to watch in any hat's chains."""
  return {
    "drift_norm_y": chains.info.drift_norm_y.mean(),
    "clip_rate_y": chains.info.clip_rate_y.mean(),
    "saturation": (jnp.abs(chains.x_sample) > 1).mean(),
  }
