import numpy as np
import pytest
import scipy.linalg

from hatebm_jax import errors
from hatebm_jax.metrics import frechet


def _covariance(rng, dim, rank=None):
  factor = rng.normal(size=(dim, rank or dim))
  return factor @ factor.T


def test_moments_by_hand():
  found = frechet.moments(np.array([[0.0, 2.0], [2.0, 0.0], [4.0, 1.0]]))
  np.testing.assert_array_equal(found.mean, [2.0, 1.0])
  np.testing.assert_array_equal(found.covariance, [[4.0, -1.0], [-1.0, 1.0]])
  assert found.count == 3


@pytest.mark.parametrize("sizes", [(7, 1, 12), (20,), (1, 19)])
def test_running_moments_are_those_of_all_at_once(sizes):
  features = 1e3 + np.random.default_rng(3).normal(size=(20, 4))
  parts = np.split(features, np.cumsum(sizes)[:-1])
  found, expected = frechet.running(iter(parts)), frechet.moments(features)
  np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
  np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
  assert found.count == 20


def test_running_moments_refuse():
  with pytest.raises(ValueError, match="found 1"):
    frechet.running([np.zeros((1, 4))])
  with pytest.raises(ValueError, match="finite"):
    frechet.running([np.zeros((1, 4)), np.full((1, 4), np.nan)])


def test_saved_moments_come_back(tmp_path):
  found = frechet.moments(np.random.default_rng(4).normal(size=(9, 3)))
  frechet.save(tmp_path / "ours.npz", found)
  again = frechet.load(tmp_path / "ours.npz", 3)
  np.testing.assert_array_equal(again.mean, found.mean)
  np.testing.assert_array_equal(again.covariance, found.covariance)
  assert again.count == 9
  # As other tools write: no count.
  np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
  assert frechet.load(tmp_path / "other.npz", 3).count == 0


@pytest.mark.parametrize(
  "arrays, found",
  [
    ({"mu": np.zeros(3)}, "sigma"),
    ({"mu": np.zeros(2), "sigma": np.eye(2)}, "another network"),
    ({"mu": np.array([None] * 3), "sigma": np.eye(3)}, "type object"),
    ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "numbers below"),
    ({"mu": np.zeros(3), "sigma": np.full((3, 3), 1e308)}, "numbers below"),
    ({"mu": np.zeros(3), "sigma": np.eye(3), "count": np.nan}, "count nan"),
    ({"mu": np.zeros(3), "sigma": np.eye(3), "count": -1}, "count -1"),
  ],
)
def test_loading_refuses_other_files(tmp_path, arrays, found):
  np.savez(tmp_path / "x.npz", **arrays)
  with pytest.raises(errors.ConfigError, match=found):
    frechet.load(tmp_path / "x.npz", 3)
  (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
  with pytest.raises(errors.ConfigError, match=r"mu \[3\]"):
    frechet.load(tmp_path / "x.npz", 3)
  with pytest.raises(errors.ConfigError, match="No such file"):
    frechet.load(tmp_path / "none.npz", 3)


@pytest.mark.parametrize(
  "features",
  [np.zeros((1, 4)), np.zeros(4), np.array([[np.nan], [0.0]])],
)
def test_moments_refuse(features):
  with pytest.raises(ValueError, match="expected"):
    frechet.moments(features)


def test_distance_of_independent_features_by_hand():
  # (0 - 3)^2 + (1 - 2)^2 + (3 - 1)^2: means, then standard deviations.
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
  # Equal covariances of rank 5 in 50 dimensions: the means alone are left.
  rng = np.random.default_rng(2)
  sigma = _covariance(rng, 50, rank=5)
  mu = rng.normal(size=50)
  found = frechet.distance(mu, sigma, mu + 1, sigma)
  np.testing.assert_allclose(found, 50.0, rtol=1e-6)
  # From a point: the trace of the other covariance.
  found = frechet.distance(mu, np.zeros((50, 50)), mu, sigma)
  np.testing.assert_allclose(found, np.trace(sigma), rtol=1e-12)


def test_distance_refuses_what_does_not_fit():
  good = np.zeros(2), np.eye(2)
  with pytest.raises(ValueError, match="expected shapes"):
    frechet.distance(*good, np.zeros(3), np.eye(3))
  with pytest.raises(ValueError, match="finite"):
    frechet.distance(*good, np.zeros(2), np.full((2, 2), np.inf))
