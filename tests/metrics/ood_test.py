import numpy as np
import pytest
from sklearn import metrics

from hatebm_jax.metrics import ood


def _scores(decimals=None):
  rng = np.random.default_rng(0)
  scores = rng.normal(size=300), rng.normal(1.0, 2.0, 200)
  return [x if decimals is None else x.round(decimals) for x in scores]


@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct", "ties"])
def test_agrees_with_scikit_learn(decimals):
  inside, outside = _scores(decimals)
  found = ood.detection(inside, outside, num_bootstraps=1)
  labels = np.repeat([0, 1], [300, 200])
  scores = np.concatenate([inside, outside])
  expected = metrics.roc_auc_score(labels, scores)
  np.testing.assert_allclose(found.auroc.value, expected, rtol=1e-12)
  expected = metrics.average_precision_score(labels, scores)
  np.testing.assert_allclose(found.aupr.value, expected, rtol=1e-12)
  # Here the in-distribution images are the positives, and -H is their score.
  fpr, tpr, _ = metrics.roc_curve(1 - labels, -scores, drop_intermediate=False)
  expected = fpr[np.argmax(tpr >= 0.95)]
  np.testing.assert_allclose(found.fpr95.value, expected, rtol=1e-12)


def test_by_hand():
  # The OOD image wins 6 of 4 x 2 pairs and ties 1.
  found = ood.detection([0.0, 1.0, 2.0, 3.0], [2.0, 5.0], num_bootstraps=1)
  assert found.auroc.value == 6.5 / 8
  # From the top, precision is one of one, then two of four with the tie at 2.
  assert found.aupr.value == (1 / 1 + 2 / 4) / 2
  # All four must be accepted, up to a score of 3. So is one of two OOD images.
  assert found.fpr95.value == 0.5


def test_separate_sets_and_equal_scores():
  apart = ood.detection(np.zeros(5), np.ones(5), num_bootstraps=20)
  assert [x.value for x in apart] == [1, 1, 0]
  assert all(x.low == x.high == x.value for x in apart)
  same = ood.detection(np.zeros(5), np.zeros(5), num_bootstraps=20)
  assert [x.value for x in same] == [0.5, 0.5, 1]


def test_interval_covers_as_often_as_it_says():
  # The AUROC of N(0, 1) against N(1, 1) is Phi(1 / sqrt(2)) = 0.7602.
  rng = np.random.default_rng(1)
  hits = 0
  for seed in range(200):
    found = ood.detection(
      rng.normal(size=60), rng.normal(1, 1, 60), 200, seed
    ).auroc
    hits += found.low <= 0.7602 <= found.high
  # The bounds are 95 % of 200 with 4 standard deviations. The percentile method
  # gives slightly short intervals with 60 images.
  assert 177 <= hits <= 200


def test_the_seed_makes_the_interval():
  inside, outside = _scores()
  first, again, other = (
    ood.detection(inside, outside, 70, seed).auroc for seed in (0, 0, 1)
  )
  assert first == again != other
  assert first.low < first.value < first.high


@pytest.mark.parametrize("bad", [[], [np.nan]])
def test_refuses(bad):
  with pytest.raises(ValueError, match="finite scores"):
    ood.detection([0.0], bad)


def test_trivial_scores_by_hand():
  image = np.array([[0, 4], [8, 4]], np.uint8)[None, :, :, None]
  scores = {name: fn(image) for name, fn in ood.BASELINES.items()}
  assert scores["brightness"] == [4]
  np.testing.assert_allclose(scores["contrast"], [8**0.5])
  # The differences are 8 and 0 down, 4 and 4 across.
  assert scores["total_variation"] == [4 + 4]
  noise = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
  flat = np.zeros((1, 16, 16, 3), np.uint8)
  sizes = ood.BASELINES["png_size"](np.concatenate([noise, flat]))
  assert sizes[0] > 16 * 16 * 3 > sizes[1] > 0


def test_baselines_take_their_better_direction():
  rng = np.random.default_rng(0)
  bright = rng.integers(200, 256, (20, 8, 8, 3), np.uint8)
  dark = rng.integers(0, 56, (20, 8, 8, 3), np.uint8)
  for inside, outside, higher in ((bright, dark, False), (dark, bright, True)):
    found = ood.baselines(inside, outside, 10)["brightness"]
    assert found["auroc"]["value"] == 1
    assert found["higher_is_out"] is higher
