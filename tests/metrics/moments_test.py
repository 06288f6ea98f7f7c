"""Tests moments of features and their files."""

import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.metrics import moments


def test_moments_by_hand():
  found = moments.compute(np.array([[0.0, 2.0], [2.0, 0.0], [4.0, 1.0]]))
  np.testing.assert_array_equal(found.mean, [2.0, 1.0])
  np.testing.assert_array_equal(found.covariance, [[4.0, -1.0], [-1.0, 1.0]])
  assert found.count == 3


@pytest.mark.parametrize("sizes", [(7, 1, 12), (20,), (1, 19)])
def test_running_moments_are_those_of_all_at_once(sizes):
  features = 1e3 + np.random.default_rng(3).normal(size=(20, 4))
  parts = np.split(features, np.cumsum(sizes)[:-1])
  found, expected = moments.running(iter(parts)), moments.compute(features)
  np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
  np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
  assert found.count == 20


def test_running_moments_refuse():
  with pytest.raises(ValueError, match="found 1"):
    moments.running([np.zeros((1, 4))])
  with pytest.raises(ValueError, match="finite"):
    moments.running([np.zeros((1, 4)), np.full((1, 4), np.nan)])


def test_saved_moments_come_back(tmp_path):
  found = moments.compute(np.random.default_rng(4).normal(size=(9, 3)))
  moments.save(tmp_path / "ours.npz", found)
  again = moments.load(tmp_path / "ours.npz", 3)
  np.testing.assert_array_equal(again.mean, found.mean)
  np.testing.assert_array_equal(again.covariance, found.covariance)
  assert again.count == 9
  # Other tools write no count.
  np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
  assert moments.load(tmp_path / "other.npz", 3).count == 0


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
    moments.load(tmp_path / "x.npz", 3)
  (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
  with pytest.raises(errors.ConfigError, match=r"mu \[3\]"):
    moments.load(tmp_path / "x.npz", 3)
  with pytest.raises(errors.ConfigError, match="No such file"):
    moments.load(tmp_path / "none.npz", 3)


@pytest.mark.parametrize(
  "features",
  [np.zeros((1, 4)), np.zeros(4), np.array([[np.nan], [0.0]])],
)
def test_moments_refuse(features):
  with pytest.raises(ValueError, match="expected"):
    moments.compute(features)
