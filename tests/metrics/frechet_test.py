"""Tests the Frechet distance by hand and against a matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from hatebm_jax.metrics import frechet


def _covariance(rng, dim, rank=None):
  factor = rng.normal(size=(dim, rank or dim))
  return factor @ factor.T


def test_distance_of_independent_features_by_hand():
  # The sum (0 - 3)^2 + (1 - 2)^2 + (3 - 1)^2 has the means first, then the
  # standard deviations.
  found = frechet.distance(
    [0.0, 5.0], np.diag([1.0, 9.0]), [3.0, 5.0], np.diag([4.0, 1.0])
  )
  np.testing.assert_allclose(found, 14.0, rtol=1e-12)


def test_distance_is_that_of_the_textbook_formula():
  rng = np.random.default_rng(0)
  mu1, mu2 = rng.normal(size=(2, 20))
  sigma1, sigma2 = _covariance(rng, 20), _covariance(rng, 20)
  root = scipy.linalg.sqrtm(sigma1 @ sigma2).real
  expected = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root)
  found = frechet.distance(mu1, sigma1, mu2, sigma2)
  np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_distance_is_symmetric_and_zero_for_equals():
  rng = np.random.default_rng(1)
  mu1, mu2 = rng.normal(size=(2, 30))
  sigma1, sigma2 = _covariance(rng, 30), _covariance(rng, 30)
  there = frechet.distance(mu1, sigma1, mu2, sigma2)
  back = frechet.distance(mu2, sigma2, mu1, sigma1)
  np.testing.assert_allclose(there, back, rtol=1e-12)
  assert frechet.distance(mu1, sigma1, mu1.copy(), sigma1.copy()) == 0


def test_distance_of_singular_covariances():
  # Equal covariances of rank 5 in 50 dimensions leave only the means.
  rng = np.random.default_rng(2)
  sigma = _covariance(rng, 50, rank=5)
  mu = rng.normal(size=50)
  found = frechet.distance(mu, sigma, mu + 1, sigma)
  np.testing.assert_allclose(found, 50.0, rtol=1e-6)
  # The distance from a point is the trace of the other covariance.
  found = frechet.distance(mu, np.zeros((50, 50)), mu, sigma)
  np.testing.assert_allclose(found, np.trace(sigma), rtol=1e-12)


def test_distance_of_unlike_covariances_of_low_rank():
  # More dimensions without variance do not change the distance.
  rng = np.random.default_rng(3)
  sigmas = [_covariance(rng, 4) for _ in range(2)]
  rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0][:, :4]
  mu = np.zeros(40)
  expected = frechet.distance(mu[:4], sigmas[0], mu[:4], sigmas[1])
  wide = [rotation @ sigma @ rotation.T for sigma in sigmas]
  found = frechet.distance(mu, wide[0], mu, wide[1])
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_distance_refuses_what_does_not_fit():
  good = np.zeros(2), np.eye(2)
  with pytest.raises(ValueError, match="expected shapes"):
    frechet.distance(*good, np.zeros(3), np.eye(3))
  with pytest.raises(ValueError, match="finite"):
    frechet.distance(*good, np.zeros(2), np.full((2, 2), np.inf))
