"""Precision, recall, density and coverage of features.

Kynkaanniemi et al., NeurIPS 2019 (improved precision and recall); Naeem et al.,
ICML 2020 (density and coverage). The manifold of a set is the union of balls
about its points, each reaching to the point's k-th neighbour.
"""

from typing import NamedTuple

import numpy as np
from sklearn import metrics

_ROWS = 1_000  # of the matrix of distances at a time


class PrecisionRecall(NamedTuple):
  """Shares in [0, 1], but for density, which may exceed 1.

  Attributes:
    precision: samples within the manifold of the real images.
    recall: real images within the manifold of the samples.
    density: real balls that a sample lies in, over k; mean.
    coverage: real balls that hold a sample.
  """

  precision: float
  recall: float
  density: float
  coverage: float


def measure(
  real: np.ndarray, samples: np.ndarray, k: int = 5
) -> PrecisionRecall:
  """Measures features of samples against those of real images.

  Args:
    real: `[n, dim]`.
    samples: `[m, dim]`.
    k: the neighbour that a ball reaches to, the point itself not counted.

  Raises:
    ValueError: if a set has no k-th neighbours.
  """
  smaller = min(len(real), len(samples))
  if not 0 < k < smaller:
    raise ValueError(
      f"k={k}: expected 1 or more, and fewer than the images of the smaller "
      f"set, {smaller}."
    )
  real, samples = (np.asarray(x, np.float64) for x in (real, samples))
  real_radii, sample_radii = _radii(real, k), _radii(samples, k)
  in_sample_balls = np.zeros(len(real), bool)
  covered = np.zeros(len(real), bool)
  balls = np.zeros(len(samples), int)
  for start in range(0, len(real), _ROWS):
    rows = slice(start, start + _ROWS)
    distances = metrics.pairwise_distances(real[rows], samples)
    in_real_balls = distances < real_radii[rows, None]
    balls += in_real_balls.sum(0)
    covered[rows] = in_real_balls.any(1)
    in_sample_balls[rows] = (distances < sample_radii).any(1)
  return PrecisionRecall(
    precision=float((balls > 0).mean()),
    recall=float(in_sample_balls.mean()),
    density=float(balls.mean() / k),
    coverage=float(covered.mean()),
  )


def _radii(points: np.ndarray, k: int) -> np.ndarray:
  """Distances to the k-th neighbours, `[n]`."""
  radii = [
    np.partition(
      metrics.pairwise_distances(points[start : start + _ROWS], points), k
    )[:, k]
    for start in range(0, len(points), _ROWS)
  ]
  return np.concatenate(radii)
