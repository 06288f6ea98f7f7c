"""Measures how well a score detects out-of-distribution (OOD) images.

A score is high for OOD images. The score of Hat EBM is the energy H(x). The
trivial scores in this module need no model. If they do as well as a model, the
model's number says little.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hatebm_jax import images as images_lib
from hatebm_jax.metrics.metric import Figure

# These are the rates that `Detection` holds.
FIGURES = (
  Figure("auroc", "AUROC", "higher"),
  Figure("aupr", "AUPR", "higher"),
  Figure("fpr95", "FPR at 95 % TPR", "lower"),
)
_ACCEPTED = 0.95  # Share of in-distribution images that FPR@95 accepts.
_CHUNK = 50  # Resamples that are in memory at a time.


class Interval(NamedTuple):
  """A rate with its 95 % bootstrap interval.

  Attributes:
    value: Rate of all scores.
    low: 2.5 % quantile over resamples.
    high: 97.5 % quantile over resamples.
  """

  value: float
  low: float
  high: float


class Detection(NamedTuple):
  """How well a score tells OOD images from in-distribution images.

  Attributes:
    auroc: Area under the receiver operating characteristic. It is the
      probability that an OOD image has the higher score; ties count half.
    aupr: Average precision with OOD images as the positives. A useless score
      gets the share of OOD images.
    fpr95: Share of OOD images that are accepted by mistake. The threshold is
      the lowest score that 95 % of the in-distribution images do not exceed.
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
    scores_in: Scores of in-distribution images, `[n]`.
    scores_out: Scores of OOD images, `[m]`.
    num_bootstraps: Number of resamples of both sets, drawn with replacement.
    seed: Seed of the resamples.

  Raises:
    ValueError: If a set is empty, or a score is not finite.
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
  values = _rates(*original)[0]
  resampled = [
    _rates(*resample(min(_CHUNK, num_bootstraps - start)))
    for start in range(0, num_bootstraps, _CHUNK)
  ]
  low, high = np.quantile(np.concatenate(resampled), (0.025, 0.975), axis=0)
  intervals = zip(values, low, high, strict=True)
  return Detection(*(Interval(*map(float, i)) for i in intervals))


def _resampled(
  places: np.ndarray, num_levels: int, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws resamples and returns their histograms, `[size, num_levels]`.

  Args:
    places: Level of each score in increasing order, `[n]`.
    num_levels: Number of different scores in both sets.
    size: Number of resamples.
    rng: Generator of the random numbers.
  """
  n = len(places)
  times_drawn = rng.multinomial(n, np.full(n, 1 / n), size)
  taken, starts = np.unique(places, return_index=True)
  counts = np.zeros((size, num_levels), np.int64)
  counts[:, taken] = np.add.reduceat(times_drawn, starts, axis=1)
  return counts


def _rates(count_in: np.ndarray, count_out: np.ndarray) -> np.ndarray:
  """Returns AUROC, AUPR and FPR@95 of histograms, `[resamples, 3]`.

  Args:
    count_in: Number of in-distribution images at each level, from the lowest
      score up, `[resamples, levels]`.
    count_out: Number of OOD images at each level, `[resamples, levels]`.
  """
  total_in, total_out = count_in.sum(1)[:, None], count_out.sum(1)[:, None]
  below_in, below_out = count_in.cumsum(1), count_out.cumsum(1)
  won = (count_out * (below_in - 0.5 * count_in)).sum(1)
  auroc = won / (total_in * total_out)[:, 0]
  # Images at a level or above it are classified as OOD, the positives.
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


# These scores need no model: uint8 [n, height, width, channels] -> [n].
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
    images_in: In-distribution images, uint8 `[n, height, width, channels]`.
    images_out: OOD images, uint8 `[m, height, width, channels]`.
    num_bootstraps: Number of resamples of both sets.
    seed: Seed of the resamples.

  Returns:
    A dictionary by the name of the score. Each entry holds `higher_is_out` and
    the `record` of the detection.
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
  """Returns a detection as plain dictionaries, ready for JSON."""
  return {name: x._asdict() for name, x in found._asdict().items()}
