"""How a hat learns, whatever its generator: chains and maximum likelihood.

Synthesis (only y moves) and the joint form (z moves too) share it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import chains as chains_lib
from hatebm_jax import energy as energy_lib
from hatebm_jax import networks, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import learner
from hatebm_jax.objectives.parts.objective import Metrics


def hat_loss(
  hat_fn: energy_lib.HatFn,
  x_data: jax.Array,
  x_sample: jax.Array,
  temperature: float,
  penalty: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Maximum-likelihood loss, (mean H(x_data) - mean H(x_sample)) / T.

  With a penalty, `penalty * (mean H(x_data)^2 + mean H(x_sample)^2) / T` is
  added (Du & Mordatch 2019, algorithm 1). It keeps the energies near 0.

  Args:
    hat_fn: The hat, images -> energies `[batch]`.
    x_data: Real images `[batch, height, width, channels]`.
    x_sample: Images of the chains, held constant; the same shape.
    temperature: Temperature T.
    penalty: Weight of the squared energies.

  Returns:
    The loss, and the mean energies of both batches (not divided by T).
  """
  # The batches take two passes. Where a channel is active everywhere, the
  # gradients of its bias then cancel exactly. Summed in one pass they would
  # leave rounding noise, which 1/T magnifies and Adam turns into whole steps.
  energies = hat_fn(x_data), hat_fn(x_sample)
  energy_data, energy_sample = energies[0].mean(), energies[1].mean()
  loss = (energy_data - energy_sample) / temperature
  if penalty:
    squares = sum(jnp.square(values).mean() for values in energies)
    loss += penalty * squares / temperature
  return loss, {"energy_data": energy_data, "energy_sample": energy_sample}


def make_chains(
  config: ml_collections.ConfigDict, mesh: Mesh, model: networks.Networks
) -> Callable[..., chains_lib.Chains]:
  """Returns the function that runs a training step's chains.

  Args:
    config: Config of the run.
    mesh: Mesh of the run.
    model: Networks of the run.

  Returns:
    A function `(variables, rng, replay=None) -> Chains` of the networks'
    variables, the key of the training step and a `chains.Replay`.
  """
  plan = chains_lib.training_plan(config)
  run = chains_lib.over_devices(
    functools.partial(chains_lib.run, model, plan),
    mesh,
    config.sharding.chains,
  )
  indices = np.arange(config.train.batch_size)

  def run_chains(variables, rng, replay=None):
    rngs = rng_lib.per_index(rng_lib.stream(rng, "chains"), indices)
    return run(variables, rngs, replay)

  return run_chains


def noisy_data(
  config: ml_collections.ConfigDict, images: jax.Array, rng: jax.Array
) -> jax.Array:
  """Returns uint8 images in [-1, 1], with the noise that the hat sees."""
  x_data = pixels.to_float(images)
  return x_data + config.hat.data_epsilon * jax.random.normal(
    rng_lib.stream(rng, "data"), x_data.shape
  )


def init_hat(
  config: ml_collections.ConfigDict, model: networks.Networks, rng: jax.Array
) -> learner.Learner:
  """Returns a hat that has taken no training step."""
  params = model.hat.init(
    rng_lib.stream(rng, "hat"), jnp.zeros((1, *model.image_shape))
  )
  return learner.start(params, learner.make_optimizer(config.hat))


def make_hat_update(
  config: ml_collections.ConfigDict, mesh: Mesh, model: networks.Networks
) -> Callable[..., tuple[learner.Learner, Metrics]]:
  """Returns the hat's update, `(hat, x_data, x_sample) -> (hat, metrics)`.

  `hat` is a learner. The images are global batches
  `[batch, height, width, channels]`, split over the devices.
  """
  optimizer = learner.make_optimizer(config.hat)
  gradient_fn = sharding.value_and_grad(
    lambda params, x_data, x_sample: hat_loss(
      lambda x: model.hat.apply(params, x),
      x_data,
      x_sample,
      config.langevin.temperature,
      config.hat.energy_penalty,
    ),
    mesh,
  )

  def update_hat(hat, x_data, x_sample):
    (loss, energies), gradients = gradient_fn(hat.params, x_data, x_sample)
    hat = learner.update(hat, gradients, optimizer, config.train.average_decay)
    gap = energies["energy_data"] - energies["energy_sample"]
    return hat, {"hat_loss": loss, **energies, "energy_gap": gap}

  return update_hat


def chain_metrics(done: chains_lib.Chains) -> Metrics:
  """Returns what there is to watch in the chains of any hat."""
  return {
    "drift_norm_y": done.info.drift_norm_y.mean(),
    "clip_rate_y": done.info.clip_rate_y.mean(),
    "saturation": (jnp.abs(done.x_sample) > 1).mean(),
  }
