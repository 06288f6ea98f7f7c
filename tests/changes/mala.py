"""A sampler: the Metropolis-adjusted Langevin algorithm (MALA) over y.

It takes the proposals of `langevin.sample` and accepts each with the
probability that makes the chain exact (Roberts and Tweedie, 1996). It has the
arguments and results of `langevin.sample`, so `chains.py` can call it instead.
"""

import jax
import jax.numpy as jnp

from hatebm_jax import energy as energy_lib
from hatebm_jax import langevin
from hatebm_jax import rng as rng_lib


def sample(rng, hat_fn, generator_fn, state, settings, first_step=0):
  """Runs `settings.num_steps` steps; `clip_rate_y` is the rejection rate."""
  if not jnp.ndim(rng):
    rng = rng_lib.per_index(rng, jnp.arange(len(state.y)))
  x_generated, step_size = generator_fn(state.z), settings.step_size_y

  def density(y):
    """Returns U(y) = H / T + tau |y|^2, its gradient, and H."""
    energy, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    prior = settings.tau * jnp.square(y).sum((1, 2, 3))
    gradient = gradient / settings.temperature + 2 * settings.tau * y
    return energy / settings.temperature + prior, gradient, energy

  def log_proposal(to, start, gradient):
    distance = to - start + 0.5 * step_size**2 * gradient
    return -jnp.square(distance).sum((1, 2, 3)) / (2 * step_size**2)

  def step(y, index):
    rngs = jax.vmap(jax.random.fold_in, (0, None))(rng, index)
    old, gradient, energy = density(y)
    drift = 0.5 * step_size**2 * gradient
    noise = rng_lib.normal(rngs, y.shape[1:])
    proposal = y - drift + step_size * noise
    new, back, _ = density(proposal)
    log_rate = old - new + log_proposal(y, proposal, back)
    log_rate -= log_proposal(proposal, y, gradient)
    draws = jax.vmap(lambda key: jax.random.uniform(rng_lib.stream(key, "u")))
    accepted = jnp.log(draws(rngs)) < log_rate
    y = jnp.where(accepted[:, None, None, None], proposal, y)
    norm = jnp.sqrt(jnp.square(drift).sum((1, 2, 3))).mean()
    rejected = 1 - accepted.mean()
    return y, langevin.Info(energy.mean(), 0 * norm, norm, rejected)

  steps = first_step + jnp.arange(settings.num_steps)
  y, info = jax.lax.scan(step, state.y, steps)
  return langevin.State(state.z, y), info
