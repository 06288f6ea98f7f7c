"""Out-of-distribution (OOD) detection: how well a score tells two sets apart.

A score is high for images that are out of the distribution; Hat EBM's is the
energy H(x). The trivial scores here need no model: where they do as well, the
model's number says little.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hatebm_jax import images as images_lib

_ACCEPTED = 0.95  # share of in-distribution images, of FPR@95
_CHUNK = 50  # resamples at a time


class Interval(NamedTuple):
  """A figure with its 95 % bootstrap interval.

  Attributes:
    value: of all scores.
    low: 2.5 % quantile over resamples.
    high: 97.5 % quantile.
  """

  value: float
  low: float
  high: float


class Detection(NamedTuple):
  """How well a score tells OOD images from in-distribution ones.

  Attributes:
    auroc: area under the receiver operating characteristic: the probability
      that an OOD image scores higher, ties counted half.
    aupr: average precision, OOD images as the positives. A useless score gets
      their share.
    fpr95: share of OOD images at or below the least score that 95 % of the
      in-distribution images do not exceed: those that would be let in.
  """

  auroc: Interval
  aupr: Interval
  fpr95: Interval


def detection(
  scores_in: np.ndarray,
  scores_out: np.ndarray,
  num_bootstraps: int = 1_000,
  seed: int = 0,
) -> Detection:
  """Measures a score.

  Args:
    scores_in: of in-distribution images, `[n]`.
    scores_out: of OOD images, `[m]`.
    num_bootstraps: resamples of both sets, with replacement.
    seed: of the resamples.

  Raises:
    ValueError: if a set is empty, or a score is not finite.
  """
  scores = [np.asarray(x, np.float64) for x in (scores_in, scores_out)]
  if not all(len(x) and np.isfinite(x).all() for x in scores):
    raise ValueError("expected finite scores of one image or more in each set.")
  levels = np.unique(np.concatenate(scores))
  places = [np.searchsorted(levels, np.sort(x)) for x in scores]
  rng = np.random.default_rng(seed)

  def resample(size):
    return [_resampled(place, len(levels), size, rng) for place in places]

  original = [np.bincount(x, minlength=len(levels))[None] for x in places]
  values = _figures(*original)[0]
  resampled = [
    _figures(*resample(min(_CHUNK, num_bootstraps - start)))
    for start in range(0, num_bootstraps, _CHUNK)
  ]
  low, high = np.quantile(np.concatenate(resampled), (0.025, 0.975), axis=0)
  intervals = zip(values, low, high, strict=True)
  return Detection(*(Interval(*map(float, i)) for i in intervals))


def _resampled(
  places: np.ndarray, num_levels: int, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws histograms of resamples, `[size, num_levels]`.

  Args:
    places: level of each score, increasing, `[n]`.
    num_levels: of all scores.
    size: number of resamples.
    rng: to draw with.
  """
  n = len(places)
  times_drawn = rng.multinomial(n, np.full(n, 1 / n), size)
  taken, starts = np.unique(places, return_index=True)
  counts = np.zeros((size, num_levels), np.int64)
  counts[:, taken] = np.add.reduceat(times_drawn, starts, axis=1)
  return counts


def _figures(count_in: np.ndarray, count_out: np.ndarray) -> np.ndarray:
  """Returns AUROC, AUPR and FPR@95 of histograms.

  Args:
    count_in: in-distribution images at each level, from the lowest score up,
      `[resamples, levels]`.
    count_out: OOD images.

  Returns:
    `[resamples, 3]`.
  """
  total_in, total_out = count_in.sum(1)[:, None], count_out.sum(1)[:, None]
  below_in, below_out = count_in.cumsum(1), count_out.cumsum(1)
  won = (count_out * (below_in - 0.5 * count_in)).sum(1)
  auroc = won / (total_in * total_out)[:, 0]
  # Positives are what lies at a level or above it.
  true = total_out - below_out + count_out
  false = total_in - below_in + count_in
  precision = true / np.maximum(true + false, 1)
  aupr = (count_out * precision).sum(1) / total_out[:, 0]
  threshold = (below_in >= _ACCEPTED * total_in).argmax(1)
  fpr95 = below_out[np.arange(len(below_out)), threshold] / total_out[:, 0]
  return np.stack([auroc, aupr, fpr95], 1)


def _total_variation(images: np.ndarray) -> np.ndarray:
  images = images.astype(np.float64)
  down, across = np.diff(images, axis=1), np.diff(images, axis=2)
  axes = (1, 2, 3)
  return np.abs(down).mean(axes) + np.abs(across).mean(axes)


def _png_size(images: np.ndarray) -> np.ndarray:
  sizes = []
  for image in images:
    file = io.BytesIO()
    images_lib.to_pillow(image).save(file, "PNG", compress_level=9)
    sizes.append(file.tell())
  return np.asarray(sizes, np.float64)


# Scores that need no model: uint8 [n, height, width, channels] -> [n].
BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "brightness": lambda images: images.mean((1, 2, 3)),
  "contrast": lambda images: images.std((1, 2, 3)),
  "total_variation": _total_variation,
  "png_size": _png_size,
}


def baselines(
  images_in: np.ndarray,
  images_out: np.ndarray,
  num_bootstraps: int = 1_000,
  seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Measures the trivial scores, each in the better of its two directions.

  Args:
    images_in: uint8 `[n, height, width, channels]`.
    images_out: uint8 `[m, height, width, channels]`.
    num_bootstraps: as in `detection`.
    seed: as in `detection`.

  Returns:
    By name: `higher_is_out`, and `record` of the detection.
  """
  result = {}
  for name, score in BASELINES.items():
    scores = score(images_in), score(images_out)
    found = detection(*scores, num_bootstraps, seed)
    higher_is_out = found.auroc.value >= 0.5
    if not higher_is_out:
      found = detection(-scores[0], -scores[1], num_bootstraps, seed)
    result[name] = {"higher_is_out": higher_is_out, **record(found)}
  return result


def record(found: Detection) -> dict[str, dict[str, float]]:
  """Returns a detection as plain dictionaries, for JSON."""
  return {name: x._asdict() for name, x in found._asdict().items()}
