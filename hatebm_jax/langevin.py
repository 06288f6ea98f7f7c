"""Short-run Langevin chains over the residual y and the latent z.

One step of the chain (Hat EBM, algorithm 1; the order is the reference's):

  1. joint form only:
     z <- z - (eps_z^2 / 2) grad_z H(G(z) + y)/T + eps_z N(0, I)
  2. at the new z: g = grad_y [H(G(z) + y)/T + tau ||y||^2], scaled down per
     image so that (eps^2 / 2) ||g|| <= max_drift_y;
     y <- y - (eps^2 / 2) g + eps N(0, I)

The generator runs as seldom as the algebra allows: once a chain where only y
moves; once a step in the joint form, since the step of y and the following step
of z see the same G(z).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hatebm_jax import energy as energy_lib
from hatebm_jax import rng as rng_lib


class State(NamedTuple):
  """Where the chains are.

  Attributes:
    z: latents `[batch, ...]`, float32.
    y: residual images `[batch, height, width, channels]`, float32.
  """

  z: jax.Array
  y: jax.Array


class Info(NamedTuple):
  """Curves of a run, `[num_steps]`, float32; means over the batch.

  Attributes:
    energy: H(G(z) + y) where the step of y took its gradient.
    drift_norm_z: (eps_z^2 / 2) ||grad_z||; zero where z does not move.
    drift_norm_y: (eps^2 / 2) ||g||, after the clip.
    clip_rate_y: share of the chains whose drift of y was clipped.
  """

  energy: jax.Array
  drift_norm_z: jax.Array
  drift_norm_y: jax.Array
  clip_rate_y: jax.Array


class Settings(NamedTuple):
  """Settings of a chain; Python numbers, fixed when it is compiled.

  Attributes:
    num_steps: Langevin steps.
    step_size_y: eps, in units of the image's [-1, 1].
    step_size_z: eps_z, in units of the latent.
    temperature: T; divides the hat's energy and nothing else.
    tau: weight of the Gaussian prior on y, tau ||y||^2.
    max_drift_y: bound on the drift's L2 norm an image; None: no clip.
    update_z: move z too (the joint form).
    noise: False leaves the drift alone.
  """

  num_steps: int
  step_size_y: float
  step_size_z: float = 0.0
  temperature: float = 1.0
  tau: float = 0.0
  max_drift_y: float | None = None
  update_z: bool = False
  noise: bool = True


def init_state(
  rngs: jax.Array,
  latent_shape: tuple[int, ...],
  image_shape: tuple[int, ...],
  scale_z: float = 1.0,
  scale_y: float = 0.0,
) -> State:
  """Starts fresh chains: z = scale_z N(0, I), y = scale_y N(0, I).

  Args:
    rngs: a key a chain, `[batch]`.
    latent_shape: of one latent.
    image_shape: of one image, `(height, width, channels)`.
    scale_z: `init_scale_latent` of the reference.
    scale_y: `init_scale_residual` of the reference.
  """
  z = scale_z * rng_lib.normal(_streams(rngs, "init_z"), latent_shape)
  y = scale_y * rng_lib.normal(_streams(rngs, "init_y"), image_shape)
  return State(z, y)


def sample(
  rng: jax.Array,
  hat_fn: energy_lib.HatFn,
  generator_fn: energy_lib.GeneratorFn,
  state: State,
  settings: Settings,
  first_step: int | jax.Array = 0,
) -> tuple[State, Info]:
  """Runs `settings.num_steps` Langevin steps on a batch of chains.

  Args:
    rng: one key (chain i then draws from its fold with i), or a key a chain
      `[batch]`: where the batch is a part of a larger one, the keys of its
      chains' global indices, so that the noise does not depend on the split.
    hat_fn: images `[batch, height, width, channels]` -> energies `[batch]`.
    generator_fn: latents `[batch, ...]` -> images.
    state: where the chains start.
    settings: of the chain.
    first_step: index of the first step in its chain; two calls of n steps, the
      second from `first_step=n`, draw the noise of one call of 2n steps.

  Returns:
    The final state and the curves of the run.
  """
  rngs = _chain_rngs(rng, state.y.shape[0])
  steps = first_step + jnp.arange(settings.num_steps)
  run = _sample_joint if settings.update_z else _sample_residual
  return run(rngs, hat_fn, generator_fn, state, settings, steps)


def sample_latents(
  rng: jax.Array,
  energy_fn: energy_lib.HatFn,
  z: jax.Array,
  num_steps: int,
  step_size: float,
) -> tuple[jax.Array, Info]:
  """Runs Langevin steps on latents alone, as DDLS does.

  z <- z - (eps^2 / 2) grad U(z) + eps N(0, I): the chain of a residual over a
  generator that makes nothing, so that y is the latent and U the hat.

  Args:
    rng: as in `sample`.
    energy_fn: U, latents `[batch, ...]` -> energies `[batch]`.
    z: where the chains start.
    num_steps: Langevin steps.
    step_size: eps, in units of the latent.

  Returns:
    The final latents and the curves of the run; the drift stands under
    `drift_norm_y`.
  """
  settings = Settings(num_steps, step_size)
  start = State(jnp.zeros_like(z), z)
  state, info = sample(rng, energy_fn, jnp.zeros_like, start, settings)
  return state.y, info


def sample_path(
  rng: jax.Array,
  hat_fn: energy_lib.HatFn,
  generator_fn: energy_lib.GeneratorFn,
  state: State,
  settings: Settings,
  num_frames: int,
) -> State:
  """Runs a chain and keeps `num_frames` states of it, start and end included.

  Args:
    rng: as in `sample`.
    hat_fn: as in `sample`.
    generator_fn: as in `sample`.
    state: as in `sample`.
    settings: as in `sample`.
    num_frames: at least 2. The frames lie `num_steps // (num_frames - 1)` steps
      apart; the steps left over are not taken.

  Returns:
    A state with a leading axis of frames: z `[num_frames, batch, ...]`, y
    `[num_frames, batch, height, width, channels]`.
  """
  every = settings.num_steps // (num_frames - 1)
  part = settings._replace(num_steps=every)

  def advance(state, frame):
    state, _ = sample(rng, hat_fn, generator_fn, state, part, frame * every)
    return state, state

  _, path = jax.lax.scan(advance, state, jnp.arange(num_frames - 1))
  return jax.tree.map(
    lambda start, rest: jnp.concatenate([start[None], rest]), state, path
  )


def _chain_rngs(rng: jax.Array, batch: int) -> jax.Array:
  """Returns a key a chain, `[batch]`."""
  if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    rng = jax.random.wrap_key_data(rng)
  if rng.ndim:
    return rng
  return rng_lib.per_index(rng, jnp.arange(batch))


def _streams(rngs: jax.Array, name: str) -> jax.Array:
  return jax.vmap(lambda rng: rng_lib.stream(rng, name))(rngs)


def _norms(x: jax.Array) -> jax.Array:
  """L2 norm of each row, shaped to broadcast against `x`."""
  axes = tuple(range(1, x.ndim))
  return jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))


def _move(x, drift, rngs, step, step_size, noise):
  """Returns x - drift + step_size N(0, I)."""
  x = x - drift
  if not noise:
    return x
  step_rngs = jax.vmap(lambda rng: jax.random.fold_in(rng, step))(rngs)
  return x + step_size * rng_lib.normal(step_rngs, x.shape[1:])


def _step_y(rngs, y, gradient, step, settings):
  """Step 2 of the chain; `gradient` is that of H in the image.

  Returns:
    The new y, the mean norm of the drift and the share that was clipped.
  """
  gradient = gradient / settings.temperature + 2 * settings.tau * y
  drift = 0.5 * settings.step_size_y**2 * gradient
  norm = _norms(drift)
  clipped = jnp.zeros_like(norm, bool)
  if settings.max_drift_y is not None:
    # where, not minimum of a quotient: a zero gradient must not divide by zero.
    clipped = norm > settings.max_drift_y
    scale = settings.max_drift_y / jnp.where(clipped, norm, 1.0)
    drift = jnp.where(clipped, scale * drift, drift)
    norm = jnp.minimum(norm, settings.max_drift_y)
  y = _move(y, drift, rngs, step, settings.step_size_y, settings.noise)
  return y, norm.mean(), clipped.mean()


def _step_z(rngs, z, gradient, step, settings):
  """Step 1 of the chain; `gradient` is that of H in z. Never clipped."""
  drift = 0.5 * settings.step_size_z**2 / settings.temperature * gradient
  z = _move(z, drift, rngs, step, settings.step_size_z, settings.noise)
  return z, _norms(drift).mean()


def _sample_residual(rngs, hat_fn, generator_fn, state, settings, steps):
  """The chain where only y moves: G(z) is computed once."""
  x_generated = generator_fn(state.z)
  rngs_y = _streams(rngs, "y")

  def body(y, step):
    energy, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    y, norm, clipped = _step_y(rngs_y, y, gradient, step, settings)
    return y, Info(energy.mean(), jnp.zeros_like(norm), norm, clipped)

  y, info = jax.lax.scan(body, state.y, steps)
  return State(state.z, y), info


def _sample_joint(rngs, hat_fn, generator_fn, state, settings, steps):
  """The chain over z and y.

  The loop's body is the y half of step i and the z half of step i + 1: both see
  G at the same z, so that its forward pass is shared. The z half of the first
  step stands before the loop, the y half of the last one behind it.
  """
  rngs_z, rngs_y = _streams(rngs, "z"), _streams(rngs, "y")

  def move_y(y, x_generated, step):
    energy, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    y, norm, clipped = _step_y(rngs_y, y, gradient, step, settings)
    return y, (energy.mean(), norm, clipped)

  def move_z(z, y, x_generated, vjp_fn, step):
    _, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    return _step_z(rngs_z, z, vjp_fn(gradient)[0], step, settings)

  def body(state, step):
    x_generated, vjp_fn = jax.vjp(generator_fn, state.z)
    y, (energy, norm_y, clipped) = move_y(state.y, x_generated, step)
    z, norm_z = move_z(state.z, y, x_generated, vjp_fn, step + 1)
    return State(z, y), Info(energy, norm_z, norm_y, clipped)

  x_generated, vjp_fn = jax.vjp(generator_fn, state.z)
  z, norm_z = move_z(state.z, state.y, x_generated, vjp_fn, steps[0])
  state, info = jax.lax.scan(body, State(z, state.y), steps[:-1])
  y, (energy, norm_y, clipped) = move_y(
    state.y, generator_fn(state.z), steps[-1]
  )
  return State(state.z, y), Info(
    energy=jnp.append(info.energy, energy),
    drift_norm_z=jnp.append(norm_z, info.drift_norm_z),
    drift_norm_y=jnp.append(info.drift_norm_y, norm_y),
    clip_rate_y=jnp.append(info.clip_rate_y, clipped),
  )
