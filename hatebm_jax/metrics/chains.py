"""Do chains mix, and are their ends copies? NumPy in, numbers out."""

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from sklearn import neighbors

# Below these a figure would not depend on the energies: of fewer frames the sum
# of autocorrelations is cut off before its first term, and the effective sample
# size is the largest that there can be.
_ESS_FRAMES = 10
_R_HAT_FRAMES = 4
# A stuck chain's variance, over that of the median chain that moves.
_STUCK = 1e-4
# Energies come in float32: a chain's smaller deviations from its mean, relative
# to the energy, are rounding.
_ROUNDING = 4 * np.finfo(np.float32).eps


class Mixing(NamedTuple):
  """How parallel chains mix, seen by one number of theirs: the energy.

  Attributes:
    ess: effective sample size of the bulk of all chains together: as many
      independent energies say as much about their mean. In frames, not in
      Langevin steps; chains that alternate may exceed the number of frames.
    r_hat: rank-normalised split R-hat, 1 at best; chains that agree stay below
      1.01.
    stuck: chains that do not move.
  """

  ess: float | None
  r_hat: float | None
  stuck: int


class Nearest(NamedTuple):
  """Nearest neighbours of n images, nearest first.

  Attributes:
    indices: among the references, `[n, count]`.
    distances: root mean square over pixels and channels, in grey levels of
      [0, 255], `[n, count]`.
  """

  indices: np.ndarray
  distances: np.ndarray


def mixing(energies: np.ndarray) -> Mixing:
  """Measures the mixing of parallel chains.

  The effective sample size is that of Geyer's initial monotone sequence (Geyer,
  Statistical Science 1992) over split chains; it and R-hat are those of
  rank-normalised values (Vehtari et al., Bayesian Analysis 2021), as computed
  by ArviZ.

  Both are None, and not a flattering number, where
  - chains are stuck: chains that all stand at one value have an R-hat of 0/0
    and, by convention, as many independent frames as there are frames;
  - an energy is not finite;
  - there are fewer than 10 frames for the effective sample size; fewer than 4,
    or a single chain, for R-hat.

  A chain is stuck where its energy varies by no more than rounding, or its
  variance is below 1e-4 of that of the median chain that moves more than
  that. It is held against the chains' own variances and not against that of all
  energies together: chains that move, but each at a level of its own, are not
  stuck, and R-hat says what they are. Chains with energies that are not finite
  are not counted.

  Args:
    energies: `[chains, frames]`, frames evenly spaced, from which the start
      (burn-in) has been cut.

  Raises:
    ValueError: for another shape, or no energies.
  """
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
    # Chains that stand still for just half of the time divide by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
      r_hat = _finite(array_stats.rhat(energies, method="rank"))
  return Mixing(ess, r_hat, stuck)


def _count_stuck(energies: np.ndarray) -> int:
  """Counts the chains `[chains, frames]` that do not move."""
  energies = energies[np.isfinite(energies).all(1)]
  if energies.shape[1] < 2 or not len(energies):
    return 0  # Of a single frame nobody can tell.
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
  """Finds the nearest references of samples, by the L2 distance of pixels.

  Args:
    samples: uint8 `[n, height, width, channels]`.
    references: uint8 `[m, height, width, channels]`, such as all training
      images.
    count: of neighbours a sample.
    batch_size: references that are in memory as float32 at a time.

  Raises:
    ValueError: if shapes do not fit, or `count` references are not there.
  """
  if samples.shape[1:] != references.shape[1:]:
    raise ValueError(
      "expected samples and references of one shape, found "
      f"{samples.shape[1:]} and {references.shape[1:]}."
    )
  if not 0 < count <= len(references):
    raise ValueError(
      f"count={count}: expected 1 or more, and at most the number of "
      f"references, {len(references)}."
    )
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
