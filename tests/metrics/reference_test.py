"""Tests metrics against other implementations on the same random features.

The numbers are those of torch-fidelity 0.4.0 (FID, KID, Inception Score) and
prdc 0.2 (precision, recall, density, coverage), float64.
"""

import memory
import numpy as np
import pytest

from hatebm_jax.metrics import (
  frechet,
  inception_score,
  kid,
  moments,
  precision_recall,
)


@pytest.fixture
def features():
  rng = np.random.default_rng(0)
  return rng.normal(size=(60, 16)), rng.normal(size=(60, 16)) * 1.2 + 0.3


@pytest.fixture
def logits():
  rng = np.random.default_rng(0)
  rng.normal(size=(2, 60, 16))
  return rng.normal(size=(40, 7)) * 2


def test_frechet_distance(features):
  one, other = map(moments.compute, features)
  found = frechet.distance(*one[:2], *other[:2])
  np.testing.assert_allclose(found, 5.871512982764791, rtol=1e-8)


def test_kid(features):
  found = kid.distance(*features, num_subsets=1, subset_size=60)
  np.testing.assert_allclose(found, (0.48417674917200326, 0.0), rtol=1e-12)


def test_precision_recall_density_and_coverage(features, monkeypatch):
  expected = (0.38, 59 / 60, 0.2, 31 / 60)
  found = precision_recall.measure(features[0], features[1][:50], k=5)
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  # The last parts are smaller.
  monkeypatch.setattr(precision_recall, "_ENTRIES", 7 * 50)
  monkeypatch.setattr(precision_recall, "_POINTS", 9)
  found = precision_recall.measure(features[0], features[1][:50], k=5)
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_inception_score_of_one_split(logits):
  found = inception_score.score(logits, num_splits=1)
  np.testing.assert_allclose(found, (2.6017444398258367, 0.0), rtol=1e-12)


def test_inception_score_of_logits_that_come_in_parts(logits):
  sums = inception_score.Sums(len(logits), num_splits=4)
  for part in np.split(logits, [1, 7, 30]):
    sums.add(part)
  expected = inception_score.score(logits, num_splits=4)
  np.testing.assert_allclose(sums.score(), expected, 1e-12)
  missing = inception_score.Sums(len(logits))
  missing.add(logits[1:])
  with pytest.raises(ValueError, match="logits of all"):
    missing.score()


def test_inception_score_of_splits(logits):
  order = np.random.default_rng(0).permutation(40)
  unshuffled = np.empty_like(logits)
  unshuffled[order] = logits  # so that the shuffle brings it back in order
  found = inception_score.score(unshuffled, num_splits=4)
  expected = 2.339983057213357, 0.16819124267576735
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_discrepancy_by_hand():
  # The kernels (x y + 1)^3 of x = 0, 1 and y = 1, 2 are 1 and 27 within the
  # sets, and 1, 1, 8 and 27 between them.
  x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
  found = kid.discrepancy(x, y)
  np.testing.assert_allclose(found, 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_subsets_depend_on_the_seed_alone(features):
  calls = [
    kid.distance(*features, num_subsets=5, subset_size=20, seed=seed)
    for seed in (0, 0, 1)
  ]
  assert calls[0] == calls[1] != calls[2]
  assert calls[0].std > 0


@pytest.mark.parametrize("size", [1, 61])
def test_subsets_that_cannot_be(features, size):
  with pytest.raises(ValueError, match="expected 2 to 60"):
    kid.distance(*features, subset_size=size)


@pytest.mark.parametrize("k", [0, 60])
def test_neighbours_that_do_not_exist(features, k):
  with pytest.raises(ValueError, match="fewer than the images"):
    precision_recall.measure(*features, k=k)


def test_splits_that_cannot_be(logits):
  with pytest.raises(ValueError, match="found 40"):
    inception_score.score(logits, num_splits=41)


def test_precision_and_recall_of_many_images_take_little_memory():
  rng = np.random.default_rng(0)
  real, samples = rng.standard_normal((2, 3_000, 64), np.float32)
  precision_recall.measure(real[:10], samples[:10])  # This imports.
  # All distances would take 72 MB.
  with memory.claims_less_than(24e6):
    precision_recall.measure(real, samples)
