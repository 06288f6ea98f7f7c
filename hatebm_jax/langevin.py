"""Short-run Langevin chains over the residual y and the latent z.

One step of the chain (Hat EBM, algorithm 1, in the order of the reference):

  1. Only in the joint form:
     z <- z - (eps_z^2 / 2) grad_z H(G(z) + y)/T + eps_z N(0, I)
  2. At the new z: g = grad_y [H(G(z) + y)/T + tau ||y||^2], scaled down per
     image so that (eps^2 / 2) ||g|| <= max_drift_y;
     y <- y - (eps^2 / 2) g + eps N(0, I)

`Settings.annealing` gives the squared step sizes factors (`annealing_factors`).

`step` takes one such step. `sample` takes many and gives the same chain with
fewer passes through the generator: G runs once in a chain where only y moves,
and once in a step of the joint form, because the step of y and the next step of
z see the same G(z).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import energy as energy_lib
from hatebm_jax import rng as rng_lib


class State(NamedTuple):
  """State of the chains.

  Attributes:
    z: Latents `[batch, ...]`, float32.
    y: Residual images `[batch, height, width, channels]`, float32.
  """

  z: jax.Array
  y: jax.Array


class Info(NamedTuple):
  """Means over the batch, float32: a scalar of a step, a curve of a run.

  Attributes:
    energy: Energy H(G(z) + y) where the step of y took its gradient.
    drift_norm_z: L2 norm of the drift of z, (eps_z^2 / 2) ||grad_z||; zero
      where z does not move.
    drift_norm_y: L2 norm of the drift of y, (eps^2 / 2) ||g||, after the clip.
    clip_rate_y: Share of the chains whose drift of y was clipped.
  """

  energy: jax.Array
  drift_norm_z: jax.Array
  drift_norm_y: jax.Array
  clip_rate_y: jax.Array


class LatentInfo(NamedTuple):
  """Curves of a chain over latents alone, `[num_steps]`, float32.

  Attributes:
    energy: Mean energy U(z) where the step took its gradient.
    drift_norm: Mean L2 norm of the drift, (eps^2 / 2) ||grad U||.
  """

  energy: jax.Array
  drift_norm: jax.Array


class Settings(NamedTuple):
  """Settings of a chain: Python numbers, fixed when it is compiled.

  Attributes:
    num_steps: Number of Langevin steps.
    step_size_y: Step size eps of y, in units of the image's range [-1, 1].
    step_size_z: Step size eps_z of z, in units of the latent.
    temperature: Temperature T; it divides the hat's energy and nothing else.
    tau: Weight of the Gaussian prior on y, tau ||y||^2.
    max_drift_y: Bound on the L2 norm of the drift of y, per image; None: no
      clip.
    update_z: Whether z moves too (the joint form).
    noise: Whether noise is added; False leaves the drift alone.
    annealing: Ratio of the first to the last squared step size of a cycle. They
      fall geometrically, and their means are eps^2 and eps_z^2.
    cycle: Number of steps after which it starts anew.
  """

  num_steps: int
  step_size_y: float
  step_size_z: float = 0.0
  temperature: float = 1.0
  tau: float = 0.0
  max_drift_y: float | None = None
  update_z: bool = False
  noise: bool = True
  annealing: float = 1.0
  cycle: int = 1


def annealing_factors(num_steps: int, ratio: float) -> np.ndarray:
  """Returns factors of the squared step sizes that fall geometrically.

  At a curvature c equal steps diverge where eps^2 c > 4, and 20 steps of ratio
  10 where eps^2 c > 6.3. (Annealing is that of Song and Ermon, NeurIPS 2019.)

  Args:
    num_steps: Number of steps of a cycle.
    ratio: Ratio of the first factor to the last one. The mean factor is 1.

  Returns:
    The factors `[num_steps]`, float64.
  """
  factors = np.geomspace(ratio, 1, num_steps)
  return factors / factors.mean()


def init_state(
  rngs: jax.Array,
  latent_shape: tuple[int, ...],
  image_shape: tuple[int, ...],
  scale_z: float = 1.0,
  scale_y: float = 0.0,
) -> State:
  """Starts fresh chains: z = scale_z N(0, I), y = scale_y N(0, I).

  Args:
    rngs: Random keys, one per chain, `[batch]`.
    latent_shape: Shape of one latent.
    image_shape: Shape of one image, `(height, width, channels)`.
    scale_z: Standard deviation of z (`init_scale_latent` of the reference).
    scale_y: Standard deviation of y (`init_scale_residual` of the reference).
  """
  z = scale_z * rng_lib.normal(_streams(rngs, "init_z"), latent_shape)
  y = scale_y * rng_lib.normal(_streams(rngs, "init_y"), image_shape)
  return State(z, y)


def step(
  rng: jax.Array,
  hat_fn: energy_lib.HatFn,
  generator_fn: energy_lib.GeneratorFn,
  state: State,
  settings: Settings,
  index: int | jax.Array = 0,
) -> tuple[State, Info]:
  """Takes one Langevin step, as the equations at the top have it.

  `sample` equals a loop of this function with `index` 0, 1, 2, ...

  Args:
    rng: Random key of the chains, or one key per chain; see `sample`. It stays
      the same in all steps of a chain.
    hat_fn: The hat, images `[batch, height, width, channels]` -> energies
      `[batch]`.
    generator_fn: The generator, latents `[batch, ...]` -> images.
    state: State of the chains before the step.
    settings: Settings of the chain; `num_steps` is not used.
    index: Index of the step in its chain, from 0.

  Returns:
    The state after the step, and means over the batch.
  """
  rngs = _chain_rngs(rng, state.y.shape[0])
  factor = _factors(settings, index)
  z, norm_z = state.z, jnp.zeros(())
  if settings.update_z:
    x_generated, vjp_fn = jax.vjp(generator_fn, z)
    _, gradient = energy_lib.image_gradient(hat_fn, x_generated + state.y)
    rngs_z = rng_lib.fold_in(_streams(rngs, "z"), index)
    z, norm_z = _step_z(rngs_z, z, vjp_fn(gradient)[0], settings, factor)
  energy, gradient = energy_lib.image_gradient(
    hat_fn, generator_fn(z) + state.y
  )
  rngs_y = rng_lib.fold_in(_streams(rngs, "y"), index)
  y, norm_y, clipped = _step_y(rngs_y, state.y, gradient, settings, factor)
  return State(z, y), Info(energy.mean(), norm_z, norm_y, clipped)


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
    rng: One random key, from which chain i derives its own by folding in i; or
      one key per chain, `[batch]`. Where the batch is a part of a larger one,
      give the keys of the chains' global indices: the noise then does not
      depend on the split.
    hat_fn: The hat, images `[batch, height, width, channels]` -> energies
      `[batch]`.
    generator_fn: The generator, latents `[batch, ...]` -> images.
    state: State at the start.
    settings: Settings of the chain.
    first_step: Index of the first step in its chain. Two calls of n steps, the
      second with `first_step=n`, draw the noise of one call of 2n steps.

  Returns:
    The state at the end and the curves of the run, `[num_steps]`.
  """
  rngs = _chain_rngs(rng, state.y.shape[0])
  steps = first_step + jnp.arange(settings.num_steps)
  run = _sample_joint if settings.update_z else _sample_residual
  # In the chain an image is one row of numbers. An image of three channels
  # would leave most lanes of a TPU's registers empty.
  shape = state.y.shape
  rows = lambda x: x.reshape(shape[0], -1)
  state, info = run(
    rngs,
    lambda x: hat_fn(x.reshape(shape)),
    lambda z: rows(generator_fn(z)),
    State(state.z, rows(state.y)),
    settings,
    steps,
  )
  return State(state.z, state.y.reshape(shape)), info


def sample_latents(
  rng: jax.Array,
  energy_fn: Callable[[jax.Array], jax.Array],
  z: jax.Array,
  num_steps: int,
  step_size: float,
) -> tuple[jax.Array, LatentInfo]:
  """Runs Langevin steps on latents alone, as DDLS does.

  One step is z <- z - (eps^2 / 2) grad U(z) + eps N(0, I).

  Args:
    rng: One random key, or one key per chain; see `sample`.
    energy_fn: The energy U, latents `[batch, ...]` -> energies `[batch]`.
    z: Latents at the start, `[batch, ...]`.
    num_steps: Number of Langevin steps.
    step_size: Step size eps, in units of the latent.

  Returns:
    The latents at the end and the curves of the run.
  """
  # The name of this stream is that of y: recorded samples of DDLS drew from it.
  rngs = _streams(_chain_rngs(rng, z.shape[0]), "y")

  def body(z, step_rngs):
    energy, gradient = energy_lib.image_gradient(energy_fn, z)
    drift = 0.5 * step_size**2 * gradient
    z = _move(z, drift, step_rngs, step_size, noise=True)
    return z, LatentInfo(energy.mean(), _norms(drift).mean())

  return jax.lax.scan(body, z, _step_rngs(rngs, jnp.arange(num_steps)))


def _chain_rngs(rng: jax.Array, batch: int) -> jax.Array:
  """Returns one random key per chain, `[batch]`."""
  if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    rng = jax.random.wrap_key_data(rng)
  if rng.ndim:
    return rng
  return rng_lib.per_index(rng, jnp.arange(batch))


def _streams(rngs: jax.Array, name: str) -> jax.Array:
  """Returns the keys of a named stream, one per chain."""
  return jax.vmap(lambda rng: rng_lib.stream(rng, name))(rngs)


def _step_rngs(rngs: jax.Array, steps: jax.Array) -> jax.Array:
  """Returns the keys of all steps, `[num_steps, batch]`.

  They are made before the loop, where they cost less than in each step.
  """
  return jax.vmap(lambda step: rng_lib.fold_in(rngs, step))(steps)


def _factors(settings: Settings, steps: int | jax.Array) -> jax.Array | None:
  """Returns the factors of the squared step sizes; None if all are 1."""
  if settings.annealing == 1 or settings.cycle == 1:
    return None
  factors = annealing_factors(settings.cycle, settings.annealing)
  return jnp.asarray(factors, jnp.float32)[steps % settings.cycle]


def _scaled(step_size: float, factor: jax.Array | None) -> float | jax.Array:
  """Returns a step size whose square has a factor."""
  return step_size if factor is None else step_size * jnp.sqrt(factor)


def _norms(x: jax.Array) -> jax.Array:
  """Returns the L2 norm of each row, shaped to broadcast against `x`."""
  axes = tuple(range(1, x.ndim))
  return jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))


def _move(x, drift, rngs, step_size, noise):
  """Returns x - drift + step_size N(0, I)."""
  x = x - drift
  return x + step_size * rng_lib.normal(rngs, x.shape[1:]) if noise else x


def _step_y(rngs, y, gradient, settings, factor):
  """Takes step 2 of the chain, given the gradient of H in the image.

  Args:
    rngs: Keys of this step, one per chain.
    y: Residual images.
    gradient: Gradient of H.
    settings: Settings of the chain.
    factor: Factor of the squared step size, or None.

  Returns:
    The new y, the mean norm of the drift, and the share of clipped chains.
  """
  gradient = gradient / settings.temperature + 2 * settings.tau * y
  step_size = _scaled(settings.step_size_y, factor)
  drift = 0.5 * step_size**2 * gradient
  norm = _norms(drift)
  clipped = jnp.zeros_like(norm, bool)
  if settings.max_drift_y is not None:
    # A minimum of a quotient would divide by zero where the gradient is zero.
    clipped = norm > settings.max_drift_y
    scale = settings.max_drift_y / jnp.where(clipped, norm, 1.0)
    drift = jnp.where(clipped, scale * drift, drift)
    norm = jnp.minimum(norm, settings.max_drift_y)
  y = _move(y, drift, rngs, step_size, settings.noise)
  return y, norm.mean(), clipped.mean()


def _step_z(rngs, z, gradient, settings, factor):
  """Takes step 1, given the gradient of H in z, which is never clipped."""
  step_size = _scaled(settings.step_size_z, factor)
  drift = 0.5 * step_size**2 / settings.temperature * gradient
  z = _move(z, drift, rngs, step_size, settings.noise)
  return z, _norms(drift).mean()


def _sample_residual(rngs, hat_fn, generator_fn, state, settings, steps):
  """Runs a chain where only y moves: G(z) is computed once."""
  x_generated = generator_fn(state.z)
  rngs_y = _step_rngs(_streams(rngs, "y"), steps)

  def body(y, of_step):
    energy, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    step_rngs, factor = of_step
    y, norm, clipped = _step_y(step_rngs, y, gradient, settings, factor)
    return y, Info(energy.mean(), jnp.zeros_like(norm), norm, clipped)

  y, info = jax.lax.scan(body, state.y, (rngs_y, _factors(settings, steps)))
  return State(state.z, y), info


def _sample_joint(rngs, hat_fn, generator_fn, state, settings, steps):
  """Runs a chain over z and y.

  The body of the loop is the y half of step i and the z half of step i + 1.
  Both see G at the same z, so they share its forward pass. The z half of the
  first step runs before the loop, the y half of the last step after it.
  """
  factors = _factors(settings, steps)
  of_z, of_y = (
    (_step_rngs(_streams(rngs, x), steps), factors) for x in ("z", "y")
  )
  part = lambda tree, where: jax.tree.map(lambda leaf: leaf[where], tree)

  def move_y(y, x_generated, of_step):
    energy, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    step_rngs, factor = of_step
    y, norm, clipped = _step_y(step_rngs, y, gradient, settings, factor)
    return y, (energy.mean(), norm, clipped)

  def move_z(z, y, x_generated, vjp_fn, of_step):
    _, gradient = energy_lib.image_gradient(hat_fn, x_generated + y)
    step_rngs, factor = of_step
    return _step_z(step_rngs, z, vjp_fn(gradient)[0], settings, factor)

  def body(state, of_steps):
    of_this_y, of_next_z = of_steps
    x_generated, vjp_fn = jax.vjp(generator_fn, state.z)
    y, (energy, norm_y, clipped) = move_y(state.y, x_generated, of_this_y)
    z, norm_z = move_z(state.z, y, x_generated, vjp_fn, of_next_z)
    return State(z, y), Info(energy, norm_z, norm_y, clipped)

  x_generated, vjp_fn = jax.vjp(generator_fn, state.z)
  z, norm_z = move_z(state.z, state.y, x_generated, vjp_fn, part(of_z, 0))
  of_steps = part(of_y, slice(-1)), part(of_z, slice(1, None))
  state, info = jax.lax.scan(body, State(z, state.y), of_steps)
  y, (energy, norm_y, clipped) = move_y(
    state.y, generator_fn(state.z), part(of_y, -1)
  )
  return State(state.z, y), Info(
    energy=jnp.append(info.energy, energy),
    drift_norm_z=jnp.append(norm_z, info.drift_norm_z),
    drift_norm_y=jnp.append(info.drift_norm_y, norm_y),
    clip_rate_y=jnp.append(info.clip_rate_y, clipped),
  )
