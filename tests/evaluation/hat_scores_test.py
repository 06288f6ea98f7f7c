import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import chains, langevin
from hatebm_jax.evaluation import hat_scores

SHAPE = (5, 4, 4, 3)
CENTRE = np.random.default_rng(0).normal(size=SHAPE[1:]).astype(np.float32)
SCALES = np.random.default_rng(1).uniform(0.5, 2, SHAPE[1:]).astype(np.float32)


def hat_fn(x):
  """The energy sum(a (x - m)^2) / 2; its gradient is a (x - m)."""
  return (SCALES * jnp.square(x - CENTRE)).sum((1, 2, 3)) / 2


def start():
  return np.random.default_rng(2).uniform(-1, 1, SHAPE).astype(np.float32)


def test_gradient_norm_by_hand():
  x = start()
  expected = np.sqrt(((SCALES * (x - CENTRE)) ** 2).sum((1, 2, 3)))
  found = hat_scores.gradient_norm(hat_fn, x)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("max_drift_y", [None, 0.5])
def test_drift_by_hand(max_drift_y):
  settings = langevin.Settings(
    num_steps=3,
    step_size_y=0.3,
    temperature=0.2,
    max_drift_y=max_drift_y,
    noise=False,
  )
  x = first = start()
  for _ in range(3):
    move = 0.5 * 0.3**2 * SCALES * (x - CENTRE) / 0.2
    norm = np.sqrt((move**2).sum((1, 2, 3), keepdims=True))
    if max_drift_y is not None:
      assert (norm > 0.5).any()
      move = move * np.minimum(1, 0.5 / norm)
    x = x - move
  expected = np.sqrt(((x - first) ** 2).mean((1, 2, 3)))
  found = hat_scores.drift(hat_fn, first, settings)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_chain_that_overflows_has_the_largest_drift():
  settings = langevin.Settings(10, 1e9, temperature=1e-6, noise=False)
  found = hat_scores.drift(hat_fn, start(), settings)
  np.testing.assert_array_equal(found, np.finfo(np.float32).max)


def test_typicality_by_hand():
  # The mean of the held-out images is 3.
  found = hat_scores.typicality(np.float32([1, 3, 7]), np.float32([2, 4]))
  np.testing.assert_array_equal(found, [2, 0, 4])


def test_mahalanobis_by_hand():
  # The mean is (1, 2) and the covariance 0.5 I, which is its own target when it
  # is shrunk. So the distances are those of Euclid over the root of 0.5.
  held_out = np.float32([[2, 2], [0, 2], [1, 3], [1, 1]])
  found = hat_scores.mahalanobis(np.float32([[1, 2], [4, 6]]), held_out)
  np.testing.assert_allclose(found, [0, 5 / 0.5**0.5], atol=1e-12)


def test_mahalanobis_does_not_depend_on_the_scales_of_many_images():
  rng = np.random.default_rng(0)
  scales = np.float64([1, 30])
  held_out, images = rng.normal(size=(2, 100_000, 2))
  found = hat_scores.mahalanobis(images[:5] * scales, held_out * scales)
  np.testing.assert_allclose(
    found, np.linalg.norm(images[:5], axis=1), rtol=0.02
  )


def test_the_short_chain_is_that_of_training_without_noise():
  config = tiny.config("digits_refine", langevin__tau=0.5)
  found = hat_scores.drift_settings(config)
  trained = chains.training_plan(config).settings
  assert trained.update_z and trained.max_drift_y is not None
  assert found == trained._replace(
    num_steps=10, tau=0.0, update_z=False, noise=False
  )
