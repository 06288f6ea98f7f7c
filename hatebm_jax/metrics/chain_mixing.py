"""Measures whether chains mix, and whether their ends copy training images."""

from typing import NamedTuple

import numpy as np

from hatebm_jax.metrics.metric import Figure

# These are the figures of `chains` in evaluation.json, apart from its curve.
FIGURES = (
  Figure("num_chains", "number of chains"),
  Figure("num_steps", "Langevin steps of each chain"),
  Figure("training_steps", "Langevin steps in training"),
  Figure("sampling_steps", "Langevin steps of samples"),
  Figure("best_steps", "Langevin step of the smallest distance"),
  Figure("ess", "effective sample size of the energy, second half"),
  Figure("r_hat", "R-hat of the energy, second half; 1 at best"),
  Figure("stuck", "chains that do not move"),
  Figure("energy_gap", "H(data) - H(samples)"),
  Figure("drift_norm_y", "L2 norm of the drift of y per step"),
  Figure("drift_norm_z", "L2 norm of the drift of z per step"),
)

# With fewer frames a figure would not depend on the energies: the sum of
# autocorrelations would be cut off before its first term, and the effective
# sample size would be the largest possible one.
_ESS_FRAMES = 10
_R_HAT_FRAMES = 4
# A chain is stuck if its variance, divided by that of the median chain that
# moves, is below this.
_STUCK = 1e-4
# Energies are float32. A chain's deviations from its mean that are smaller than
# this, relative to the energy, are rounding.
_ROUNDING = 4 * np.finfo(np.float32).eps


class Mixing(NamedTuple):
  """How parallel chains mix, judged by their energies.

  Attributes:
    ess: Effective sample size of the bulk of all chains together. This many
      independent energies say as much about their mean. It counts frames, not
      Langevin steps. It may exceed the number of frames if chains alternate.
    r_hat: Rank-normalised split R-hat. It is 1 at best, and below 1.01 for
      chains that agree.
    stuck: Number of chains that do not move.
  """

  ess: float | None
  r_hat: float | None
  stuck: int


class Nearest(NamedTuple):
  """Nearest neighbours of n images, the nearest first.

  Attributes:
    indices: Indices of the references, `[n, count]`.
    distances: Root mean square over pixels and channels, in grey levels of
      [0, 255], `[n, count]`.
  """

  indices: np.ndarray
  distances: np.ndarray


def mixing(energies: np.ndarray) -> Mixing:
  """Measures the mixing of parallel chains.

  The effective sample size uses Geyer's initial monotone sequence (Geyer,
  Statistical Science 1992) over split chains. The effective sample size and
  R-hat are those of rank-normalised values (Vehtari et al., Bayesian Analysis
  2021). ArviZ computes them.

  Both are None in these cases, where they would be too good or undefined:

  - Chains are stuck. If all chains stand at one value, R-hat is 0/0, and by
    convention all frames count as independent.
  - An energy is not finite.
  - There are too few frames: fewer than 10 for the effective sample size, fewer
    than 4 for R-hat. R-hat also needs two chains.

  A chain is stuck if its energy varies by no more than rounding, or if its
  variance is below 1e-4 of the variance of the median chain that moves. The
  variances of single chains are compared, not the variance of all energies
  together: chains that move at different levels are not stuck, and R-hat shows
  that they disagree. Chains whose energies are not finite are not counted.

  Args:
    energies: Energies `[chains, frames]`. The frames are evenly spaced, and the
      start (burn-in) has been cut.

  Raises:
    ValueError: If the energies have another shape, or there are none.
  """
  from arviz_stats.base import array_stats  # The import takes a second.

  energies = np.asarray(energies, np.float64)
  if energies.ndim != 2 or not energies.size:
    raise ValueError(
      f"expected energies [chains, frames], found shape {energies.shape}."
    )
  stuck = _count_stuck(energies)
  if stuck or not np.isfinite(energies).all():
    return Mixing(None, None, stuck)
  num_chains, num_frames = energies.shape
  ess = r_hat = None
  if num_frames >= _ESS_FRAMES:
    ess = _finite(array_stats.ess(energies, method="bulk"))
  if num_frames >= _R_HAT_FRAMES and num_chains > 1:
    # Chains that stand still for half of the time lead to a division by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
      r_hat = _finite(array_stats.rhat(energies, method="rank"))
  return Mixing(ess, r_hat, stuck)


def _count_stuck(energies: np.ndarray) -> int:
  """Returns the number of chains `[chains, frames]` that do not move."""
  energies = energies[np.isfinite(energies).all(1)]
  if energies.shape[1] < 2 or not len(energies):
    return 0  # A single frame does not show whether a chain moves.
  spread = energies.std(1)
  still = spread <= _ROUNDING * np.abs(energies).max(1)
  if still.all():
    return len(energies)
  variance = np.square(spread)
  return int((still | (variance < _STUCK * np.median(variance[~still]))).sum())


def _finite(value: np.ndarray) -> float | None:
  return float(value) if np.isfinite(value) else None


def nearest(
  samples: np.ndarray,
  references: np.ndarray,
  count: int = 1,
  batch_size: int = 1_000,
) -> Nearest:
  """Finds the references nearest to samples by the L2 distance of pixels.

  Args:
    samples: Samples, uint8 `[n, height, width, channels]`.
    references: References such as all training images, uint8
      `[m, height, width, channels]`.
    count: Number of neighbours of each sample.
    batch_size: Number of references that are in memory as float32 at a time.

  Raises:
    ValueError: If the shapes do not fit, or there are fewer than `count`
      references.
  """
  if samples.shape[1:] != references.shape[1:]:
    raise ValueError(
      "expected samples and references of one shape, found "
      f"{samples.shape[1:]} and {references.shape[1:]}."
    )
  if not 0 < count <= len(references):
    raise ValueError(
      f"count={count}: expected 1 to {len(references)}, the number of "
      "references."
    )
  from sklearn import neighbors  # The import takes a second.

  rows = lambda images: images.reshape(len(images), -1).astype(np.float32)
  queries = rows(samples)
  indices = np.empty((len(samples), 0), np.int64)
  distances = np.empty((len(samples), 0))
  for start in range(0, len(references), batch_size):
    batch = rows(references[start : start + batch_size])
    search = neighbors.NearestNeighbors(algorithm="brute").fit(batch)
    found = search.kneighbors(queries, min(count, len(batch)))
    distances = np.concatenate([distances, found[0]], 1)
    indices = np.concatenate([indices, start + found[1]], 1)
    best = distances.argsort(1, kind="stable")[:, :count]
    distances = np.take_along_axis(distances, best, 1)
    indices = np.take_along_axis(indices, best, 1)
  return Nearest(indices, distances / np.sqrt(queries.shape[1]))
