"""Precision, recall, density and coverage of features.

Precision and recall are those of Kynkaanniemi et al. (NeurIPS 2019). Density
and coverage are those of Naeem et al. (ICML 2020). The manifold of a set is the
union of balls around its points. Each ball reaches to the point's k-th
neighbour.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hatebm_jax.metrics.metric import Figure, Reference, Sample

FIGURES = (
  Figure("precision", "precision", "higher"),
  Figure("recall", "recall", "higher"),
  Figure("density", "density", "higher"),
  Figure("coverage", "coverage", "higher"),
)
NEIGHBOURS = 5
PROTOCOL = {"precision_recall_neighbours": NEIGHBOURS}
# Parts of the matrix of distances that are in memory at a time have about so
# many entries.
_ENTRIES = 1_000_000
_POINTS = 1_000  # Points that are in memory in float64 at a time.


class PrecisionRecall(NamedTuple):
  """Four figures; all but density are shares in [0, 1].

  Attributes:
    precision: Share of samples that lie in the manifold of the real images.
    recall: Share of real images that lie in the manifold of the samples.
    density: Mean number of real balls that a sample lies in, divided by k. It
      may exceed 1.
    coverage: Share of real balls that hold a sample.
  """

  precision: float
  recall: float
  density: float
  coverage: float


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns the four figures if both sets have enough known features.

  Recall and density depend on the sizes of the sets, so both sets are cut to
  the size of the smaller one.
  """
  if reference.features is None:
    return {}
  smaller = min(len(reference.features), len(sample.features))
  if smaller <= NEIGHBOURS:
    return {}
  real, samples = reference.features[:smaller], sample.features[:smaller]
  return measure(real, samples, NEIGHBOURS)._asdict()


def measure(
  real: np.ndarray, samples: np.ndarray, k: int = NEIGHBOURS
) -> PrecisionRecall:
  """Measures features of samples against those of real images.

  Args:
    real: Features of real images, `[n, dim]`.
    samples: Features of samples, `[m, dim]`.
    k: Number of the neighbour that a ball reaches to. The point itself does not
      count.

  Raises:
    ValueError: If a set has too few points to have k-th neighbours.
  """
  smaller = min(len(real), len(samples))
  if not 0 < k < smaller:
    raise ValueError(
      f"k={k}: expected at least 1 and fewer than the images of the smaller "
      f"set, {smaller}."
    )
  real_radii, sample_radii = _radii(real, k), _radii(samples, k)
  in_sample_balls = np.zeros(len(real), bool)
  covered = np.zeros(len(real), bool)
  balls = np.zeros(len(samples), int)
  for rows in _parts(real, samples):
    distances = _distances(real[rows], samples)
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
  """Returns the distances of points to their k-th neighbours, `[n]`."""
  radii = np.empty(len(points))
  for rows in _parts(points, points):
    distances = _distances(points[rows], points)
    distances.partition(k, axis=1)
    radii[rows] = distances[:, k]
  return radii


def _parts(a: np.ndarray, b: np.ndarray) -> Iterator[slice]:
  """Yields rows of `a` whose distances to all of `b` are a small matrix."""
  size = max(1, _ENTRIES // len(b))
  for start in range(0, len(a), size):
    yield slice(start, start + size)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the distances between all pairs of points, `[len(a), len(b)]`.

  The result is float64. Only a few points at a time are brought to float64.
  """
  from sklearn import metrics  # The import takes a second.

  a = np.asarray(a, np.float64)
  distances = np.empty((len(a), len(b)))
  for start in range(0, len(b), _POINTS):
    part = np.asarray(b[start : start + _POINTS], np.float64)
    distances[:, start : start + len(part)] = metrics.pairwise_distances(
      a, part
    )
  return distances
