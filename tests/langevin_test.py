"""Checks the chain against hand computation, exact laws and invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import energy, langevin
from hatebm_jax import rng as rng_lib

SHAPE = (2, 2, 1)  # shape of an image
A = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
Q = np.array([1.0, 2.0, 0.5, 4.0], np.float32)


def generator_fn(z):
  """Returns the linear map x = A^T z."""
  return (z @ A).reshape(-1, *SHAPE)


def hat_fn(x):
  """Returns the quadratic energy H = x^T diag(Q) x / 2, with gradient Q x."""
  return 0.5 * (jnp.square(x.reshape(-1, 4)) * Q).sum(1)


def start(batch=5, scale_y=0.3):
  rngs = rng_lib.per_index(jax.random.key(1), jnp.arange(batch))
  return langevin.init_state(rngs, (3,), SHAPE, 1.0, scale_y)


@functools.partial(jax.jit, static_argnames="settings")
def run(rng, state, settings, first_step=0):
  return langevin.sample(rng, hat_fn, generator_fn, state, settings, first_step)


def by_hand(z, y, settings, step_z=True, factor=1.0):
  """Takes one step without noise in NumPy float64.

  `factor` multiplies the squared step sizes.

  Returns:
    z and y after the step, the mean drift norms of z and y, and the mean energy
    before y moves.
  """
  z, y = np.float64(z), np.float64(y).reshape(-1, 4)
  norm_z = 0.0
  if step_z:
    drift = (
      factor
      * settings.step_size_z**2
      / 2
      * ((z @ A + y) * Q / settings.temperature)
    ) @ A.T
    z, norm_z = z - drift, np.linalg.norm(drift, axis=1).mean()
  x = z @ A + y
  drift = (
    factor
    * settings.step_size_y**2
    / 2
    * (x * Q / settings.temperature + 2 * settings.tau * y)
  )
  norm = np.linalg.norm(drift, axis=1, keepdims=True)
  if settings.max_drift_y is not None:
    drift *= np.minimum(1, settings.max_drift_y / norm)
    norm = np.minimum(norm, settings.max_drift_y)
  return z, y - drift, norm_z, norm.mean(), (0.5 * x * x * Q).sum(1).mean()


@pytest.mark.parametrize("update_z", [False, True])
@pytest.mark.parametrize("max_drift_y", [None, 0.05])
@pytest.mark.parametrize("annealing", [1.0, 3.0])
def test_one_step_and_three_by_hand(update_z, max_drift_y, annealing):
  settings = langevin.Settings(
    num_steps=1,
    step_size_y=0.3,
    step_size_z=0.2,
    temperature=0.5,
    tau=0.7,
    max_drift_y=max_drift_y,
    update_z=update_z,
    noise=False,
    annealing=annealing,
    cycle=2,
  )
  state = start()
  for num_steps in (1, 3):
    z, y = state
    expected = []
    for i in range(num_steps):
      factor = 1.0 if annealing == 1 else (1.5, 0.5, 1.5)[i]
      z, y, *curves = by_hand(z, y, settings, update_z, factor)
      expected.append(curves)
    result, info = run(
      jax.random.key(0), state, settings._replace(num_steps=num_steps)
    )
    np.testing.assert_allclose(result.z, z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.y.reshape(-1, 4), y, rtol=1e-5, atol=1e-6)
    norm_z, norm_y, energies = np.transpose(expected)
    np.testing.assert_allclose(info.drift_norm_z, norm_z, rtol=1e-5)
    np.testing.assert_allclose(info.drift_norm_y, norm_y, rtol=1e-5)
    np.testing.assert_allclose(info.energy, energies, rtol=1e-5)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("update_z", [False, True])
@pytest.mark.parametrize("keys", ["one", "one per chain"])
@pytest.mark.parametrize("annealing", [1.0, 3.0])
def test_sample_is_a_loop_of_steps(noise, update_z, keys, annealing):
  settings = langevin.Settings(
    num_steps=5,
    step_size_y=0.3,
    step_size_z=0.2,
    temperature=0.5,
    tau=0.7,
    max_drift_y=0.4,  # This clips about half of the drifts.
    update_z=update_z,
    noise=noise,
    annealing=annealing,
    cycle=2,
  )
  rng, state = jax.random.key(8), start()
  if keys == "one per chain":
    rng = rng_lib.per_index(rng, 7 + jnp.arange(5))
  whole, info = run(rng, state, settings, 3)
  steps = []
  for index in range(3, 8):
    state, one = langevin.step(
      rng, hat_fn, generator_fn, state, settings, index
    )
    steps.append(one)
  np.testing.assert_allclose(whole.z, state.z, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(whole.y, state.y, rtol=1e-5, atol=1e-6)
  for curve, *values in zip(info, *steps, strict=True):
    np.testing.assert_allclose(curve, values, rtol=1e-5)
  assert 0 < np.mean(info.clip_rate_y) < 1


def test_annealing_falls_geometrically_with_mean_one():
  factors = langevin.annealing_factors(4, 8.0)
  np.testing.assert_allclose(factors, np.array([8, 4, 2, 1]) / 3.75, rtol=1e-12)


def test_the_noise_of_an_annealed_step_has_its_step_size():
  settings = langevin.Settings(1, 0.3, annealing=7.0, cycle=2)
  flat = lambda x: jnp.zeros(len(x))
  rngs = rng_lib.per_index(jax.random.key(1), jnp.arange(4_000))
  state = langevin.State(jnp.zeros((4_000, 3)), jnp.zeros((4_000, *SHAPE)))
  result, _ = langevin.sample(rngs, flat, generator_fn, state, settings, 3)
  # Step 3 is the last one of a cycle. Its factor is 0.25. The standard
  # deviation of 16,000 numbers has a standard error of 0.6 %.
  np.testing.assert_allclose(np.std(result.y), 0.15, rtol=0.025)


def test_an_annealed_chain_bears_a_steeper_energy():
  """Equal steps diverge where (eps^2 / 2) q > 2. It is 2.5 here."""
  steep = lambda x: 0.5 * 5.0 * jnp.square(x.reshape(-1, 4)).sum(1)
  equal = langevin.Settings(20, 1.0, noise=False)
  factors = langevin.annealing_factors(20, 10.0)
  z, y = jnp.zeros((1, 3)), jnp.ones((1, *SHAPE))
  for settings, expected in (
    (equal, (1 - 2.5) ** 20),
    (
      equal._replace(annealing=10.0, cycle=20),
      np.prod(1 - 2.5 * factors),
    ),
  ):
    result, _ = langevin.sample(
      jax.random.key(0), steep, generator_fn, langevin.State(z, y), settings
    )
    np.testing.assert_allclose(result.y, expected * y, rtol=1e-3)
  assert abs(expected) < 0.01 < 3_000 < 1.5**20


def test_drift_is_the_gradient_of_the_joint_energy():
  settings = langevin.Settings(
    1, 0.1, 0.0, temperature=0.3, tau=2.0, noise=False
  )
  z, y = start()

  def energy_sum(y):
    hat = hat_fn(generator_fn(z) + y) / 0.3
    return (hat + 2.0 * jnp.square(y).sum((1, 2, 3))).sum()

  gradient = jax.grad(energy_sum)(y)
  result, _ = run(jax.random.key(0), langevin.State(z, y), settings)
  np.testing.assert_allclose(
    y - result.y, 0.005 * gradient, rtol=1e-3, atol=1e-6
  )


def test_a_zero_gradient_is_not_divided_by():
  settings = langevin.Settings(2, 0.1, max_drift_y=1.0, noise=False)
  state = langevin.State(jnp.zeros((2, 3)), jnp.zeros((2, *SHAPE)))
  result, info = run(jax.random.key(0), state, settings)
  np.testing.assert_array_equal(result.y, state.y)
  np.testing.assert_array_equal(info.drift_norm_y, [0, 0])


def test_stationary_law_of_y():
  """y' = (1 - a) y + eps n has variance eps^2 / (1 - (1 - a)^2), mean 0."""
  eps, temperature, tau, chains = 0.6, 0.8, 0.15, 20_000
  settings = langevin.Settings(
    60, eps, temperature=temperature, tau=tau, max_drift_y=None
  )
  state = langevin.State(jnp.zeros((chains, 3)), jnp.ones((chains, *SHAPE)))
  state, _ = run(jax.random.key(3), state, settings)
  y = np.float64(state.y).reshape(chains, 4)
  decay = 1 - eps**2 / 2 * (Q / temperature + 2 * tau)
  variance = eps**2 / (1 - decay**2)
  # The bounds are four standard errors of a mean and of a Gaussian's variance.
  bound = 4 * np.sqrt(variance / chains)
  np.testing.assert_array_less(np.abs(y.mean(0) - decay**60), bound)
  np.testing.assert_array_less(
    np.abs(y.var(0) / variance - 1), 4 * np.sqrt(2 / chains)
  )
  correlation = np.corrcoef(y.T) - np.eye(4)
  assert np.abs(correlation).max() < 4 / np.sqrt(chains)


def test_joint_law_of_z_and_y():
  """With a linear G and a quadratic H the chain is a linear recursion.

  It is s' = M s + N n with s = (z, y). Its covariance obeys
  C' = M C M^T + N N^T at every step, beginning with that of the start.
  """
  eps_z, eps, temperature, tau = 0.3, 0.5, 0.8, 0.4
  num_steps, chains = 40, 40_000
  settings = langevin.Settings(
    num_steps, eps, eps_z, temperature, tau, update_z=True
  )
  hat, drift_z, drift_y = np.diag(Q) / temperature, eps_z**2 / 2, eps**2 / 2
  map_z = np.hstack([np.eye(3) - drift_z * A @ hat @ A.T, -drift_z * A @ hat])
  noise_z = np.hstack([eps_z * np.eye(3), np.zeros((3, 4))])
  zero, decay = np.zeros((4, 3)), np.eye(4) * (1 - 2 * drift_y * tau)
  push = -drift_y * hat @ A.T  # effect of the new z on y
  map_y = np.hstack([zero, decay - drift_y * hat]) + push @ map_z
  noise_y = np.hstack([zero, eps * np.eye(4)]) + push @ noise_z
  step, noise = np.vstack([map_z, map_y]), np.vstack([noise_z, noise_y])
  covariance = np.diag([1.0] * 3 + [0.3**2] * 4)
  for _ in range(num_steps):
    covariance = step @ covariance @ step.T + noise @ noise.T

  state, _ = run(jax.random.key(4), start(chains), settings)
  found = np.hstack([state.z, state.y.reshape(chains, 4)]).astype(np.float64)
  variance = np.diag(covariance)
  np.testing.assert_array_less(
    np.abs(found.mean(0)), 4 * np.sqrt(variance / chains)
  )
  # The bound is four and a half standard errors of a Gaussian's covariance,
  # which has 28 numbers.
  error = np.sqrt((covariance**2 + np.outer(variance, variance)) / chains)
  np.testing.assert_array_less(
    np.abs(found.T @ found / chains - covariance), 4.5 * error
  )


def test_stationary_law_of_latents():
  """DDLS with D(G(z)) = -z^T diag(q) z / 2 has the precision 1 + q."""
  eps, q, chains = 0.5, np.array([0.0, 1.0, 3.0], np.float32), 20_000
  energy_fn = energy.ddls(lambda x: -0.5 * (x * x * q).sum(1), lambda z: z)
  z, info = jax.jit(
    lambda z: langevin.sample_latents(
      jax.random.key(6), energy_fn, z, num_steps=80, step_size=eps
    )
  )(jnp.ones((chains, 3)))
  decay = 1 - eps**2 / 2 * (1 + q)
  variance = eps**2 / (1 - decay**2)
  # The chain starts at z = 1 and has not forgotten its start completely.
  mean, variance = decay**80, variance * (1 - decay**160)
  z = np.float64(z)
  np.testing.assert_array_less(
    np.abs(z.mean(0) - mean), 4 * np.sqrt(variance / chains)
  )
  np.testing.assert_array_less(
    np.abs(z.var(0) / variance - 1), 4 * np.sqrt(2 / chains)
  )
  first = eps**2 / 2 * np.linalg.norm(1 + q)
  np.testing.assert_allclose(info.drift_norm[0], first, rtol=1e-5)
  np.testing.assert_allclose(info.energy[0], 0.5 * (1 + q).sum(), rtol=1e-5)


@pytest.mark.parametrize("update_z", [False, True])
def test_noise_depends_on_the_chain_alone(update_z):
  settings = langevin.Settings(4, 0.1, 0.1, update_z=update_z)
  rng, state = jax.random.key(5), start(6)
  whole, _ = run(rng, state, settings)
  rngs = rng_lib.per_index(rng, jnp.arange(6))
  parts = [
    run(
      rngs[part],
      jax.tree.map(lambda leaf, part=part: leaf[part], state),
      settings,
    )[0]
    for part in (slice(0, 2), slice(2, 6))
  ]
  for i in range(2):
    np.testing.assert_allclose(
      whole[i], np.concatenate([part[i] for part in parts]), atol=1e-6
    )


@pytest.mark.parametrize("update_z", [False, True])
def test_two_halves_are_one_chain(update_z):
  settings = langevin.Settings(6, 0.1, 0.1, update_z=update_z)
  half = settings._replace(num_steps=3)
  rng, state = jax.random.key(5), start()
  whole, info = run(rng, state, settings)
  state, first = run(rng, state, half)
  state, second = run(rng, state, half, 3)
  np.testing.assert_allclose(whole.z, state.z, atol=1e-6)
  np.testing.assert_allclose(whole.y, state.y, atol=1e-6)
  for curve, *halves in zip(info, first, second, strict=True):
    np.testing.assert_allclose(curve, np.concatenate(halves), rtol=1e-4)


def test_old_style_keys_are_accepted():
  settings = langevin.Settings(2, 0.1)
  new, old = (
    run(rng, start(), settings)[0]
    for rng in (jax.random.key(7), jax.random.PRNGKey(7))
  )
  np.testing.assert_array_equal(new.y, old.y)
