"""Asks a hat at which temperature it was trained.

A Langevin step of y adds a drift of (eps^2/2) ||grad H|| / T and noise of eps
times the square root of the number of pixels and channels. Training keeps the
two in balance at its own T. At a T that is far too high the drift vanishes
beside the noise, and at one that is far too low every drift meets the clip.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import chains as chains_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax import sample, sharding

# A temperature is plausible if the drift is at least this share of the noise,
# and at most this share of the drifts is clipped.
_MIN_DRIFT, _MAX_CLIP_RATE = 0.1, 0.9


def measure(
  restored: sample.Restored, data_energy: float
) -> list[dict[str, Any]]:
  """Runs fresh chains of training length at each temperature in question.

  These are the temperature of training and those of
  `config.chains.temperatures`. Everything else is as in training, also the clip
  of the drift.

  Args:
    restored: Run that has a hat.
    data_energy: Mean energy H of training images.

  Returns:
    For each temperature a dict of `temperature`, `drift_norm_y` (after the
    clip, a mean over steps and chains), `noise_norm_y`, `max_drift_y`,
    `clip_rate_y`, `energy_gap` (mean H of data minus mean H where the chains
    end, None if it is not finite) and `plausible`.
  """
  config = restored.config
  asked = [config.langevin.temperature, *config.chains.temperatures]
  # Each temperature once, in this order.
  return [
    _at(restored, temperature, data_energy)
    for temperature in dict.fromkeys(asked)
  ]


def _at(
  restored: sample.Restored, temperature: float, data_energy: float
) -> dict[str, Any]:
  """Runs the chains at one temperature."""
  config, model = restored.config, restored.networks
  plan = chains_lib.training_plan(config)
  settings = plan.settings._replace(temperature=temperature)
  plan = plan._replace(settings=settings)

  def run(variables, rngs):
    found = chains_lib.run(model, plan, variables, rngs)
    hat_fn, _ = chains_lib.bind(model, variables)
    drift, clipped = found.info.drift_norm_y, found.info.clip_rate_y
    return hat_fn(found.x_sample), drift.mean(1), clipped.mean(1)

  devices = restored.mesh.size
  count = -(-config.chains.num_chains // devices) * devices
  rng = rng_lib.stream(jax.random.key(config.seed), "sample")
  method = config.sharding.chains
  call = jax.jit(chains_lib.over_devices(run, restored.mesh, method))
  rngs = rng_lib.per_index(rng, jnp.arange(count))
  energies, drift, clipped = sharding.fetch(call(restored.variables, rngs))
  drift, clip_rate = (float(np.mean(x, dtype=float)) for x in (drift, clipped))
  noise = settings.step_size_y * math.sqrt(math.prod(model.image_shape))
  gap = data_energy - float(np.mean(energies, dtype=float))
  return {
    "temperature": temperature,
    "drift_norm_y": drift if math.isfinite(drift) else None,
    "noise_norm_y": noise,
    "max_drift_y": settings.max_drift_y,
    "clip_rate_y": clip_rate,
    "energy_gap": gap if math.isfinite(gap) else None,
    "plausible": drift >= _MIN_DRIFT * noise and clip_rate <= _MAX_CLIP_RATE,
  }
