"""Tests that metrics of sets of images are found by walking the package."""

import numpy as np
import pytest

from hatebm_jax import metrics
from hatebm_jax.metrics import inception_score, moments
from hatebm_jax.metrics import metric as metric_lib
from hatebm_jax.metrics.metric import Figure

NAMES = [
  "frechet_distance",
  "inception_score",
  "kid",
  "kernel_distance",
  "precision",
  "recall",
  "density",
  "coverage",
  "recognised",
  "rarest",
]


def a_set(network, num_images=20):
  """Returns a sample and a reference of random features."""
  rng = np.random.default_rng(0)
  features = rng.normal(size=(num_images, 4))
  images = rng.integers(0, 256, (num_images, 2, 2, 1), np.uint8)
  found = moments.compute(features)
  sums = inception_score.Sums(num_images)
  sums.add(features)
  sample = metric_lib.Sample(images, found, features, sums)
  return sample, metric_lib.Reference(network, found, features)


def test_the_frechet_distance_comes_first():
  assert list(metrics.all_figures()) == NAMES


@pytest.mark.parametrize(
  "network, expected",
  [
    ("FID", [*NAMES[:3], *NAMES[4:8]]),
    ("FD-EfficientNet-Lite0", [NAMES[0], *NAMES[3:8]]),
    ("FD-digits", [NAMES[0], *NAMES[4:8]]),
  ],
)
def test_metrics_measure_what_they_declare(network, expected):
  sample, reference = a_set(network)
  found = {}
  for metric in metrics.all_metrics():
    values = metric.figures(sample, reference)
    assert values.keys() <= {figure.name for figure in metric.FIGURES}
    found |= values
  assert list(found) == expected
  assert found["frechet_distance"] == 0 and found["coverage"] == 1


def test_what_cannot_be_measured_is_left_out():
  sample, reference = a_set("FID", num_images=5)
  found = {}
  for metric in metrics.all_metrics():
    found |= metric.figures(sample, reference)
  # The Inception Score needs ten images, and a fifth neighbour needs six.
  assert list(found) == ["frechet_distance", "kid"]
  found = {}
  for metric in metrics.all_metrics():
    found |= metric.figures(sample, reference._replace(features=None))
  assert list(found) == ["frechet_distance"]


@pytest.mark.parametrize(
  "figure, heading, text",
  [
    (Figure("kid", "KID", "lower", 4), "KID ↓", "0.1235"),
    (Figure("x", "", "lower", decimals_in={"FID": 2}), "FID ↓", "0.12"),
    (Figure("x", "X", "higher", 1, percent=True), "X ↑, %", "12.3%"),
    (Figure("x", "X"), "X", "0.123"),
  ],
)
def test_headings_and_texts(figure, heading, text):
  assert figure.heading("FID") == heading
  assert figure.text(0.12345, "FID") == text
