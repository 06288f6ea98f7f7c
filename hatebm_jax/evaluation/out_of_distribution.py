"""Detects out-of-distribution (OOD) images by the scores of a trained hat."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from hatebm_jax import chains, data, errors, sample
from hatebm_jax.evaluation import energies, hat_scores, ood_pairs, plots
from hatebm_jax.metrics import ood


class _Scorers(NamedTuple):
  """Compiled functions of images, uint8 `[n, height, width, channels]`.

  Attributes:
    energy: Returns the energies, float32 `[n]`. It has a program of its own, so
      that its rounding does not depend on the other scores.
    with_gradients: Returns the norms of the gradients and the drifts, each
      float32 `[n]`.
    features: Returns the hat's features, float32 `[n, d]`; None if the hat has
      none.
  """

  energy: Callable[[np.ndarray], np.ndarray]
  with_gradients: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  features: Callable[[np.ndarray], np.ndarray] | None


def measure(
  restored: sample.Restored,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Measures how well scores tell `config.ood.sets` from the test split.

  The score of Hat EBM is H(x), which is low in the distribution. `hat_scores`
  has the other scores of the hat, and `metrics.ood` those that need no model.
  Both sets are first brought to the lower resolution of the two. If one side
  alone were resized, the resize would be detected.

  Args:
    restored: Run that has a hat.

  Returns:
    The group `ood` of evaluation.json, and the picture `ood`: histograms of the
    energies, uint8 `[height, width, 3]`. A set has neither `typicality` nor
    `mahalanobis` if too few test images are left that are not scored, and no
    `mahalanobis` if the hat is one of the user's own without features.

  Raises:
    ConfigError: If a field of `config.ood` cannot be used.
    DataError: If a set cannot be read.
  """
  config = restored.config
  settings = config.ood
  _check(settings)
  scorers = _Scorers(
    energies.scorer(restored),
    hat_scores.scorer(restored),
    hat_scores.feature_scorer(restored)
    if restored.networks.hat.features
    else None,
  )
  sets, energies_of = {}, {}
  for source in settings.sets:
    pair = ood_pairs.load(config, source)
    scores = _scores(scorers, pair)
    energies_of[pair.names[1]] = scores["energy"]
    sets[pair.names[1]] = _figures(config, pair, scores)
  figures = {
    "in_distribution": pair.names[0],
    "jpeg_quality": settings.jpeg_quality,
    "drift_chain": chains.record(hat_scores.drift_settings(config)),
    "sets": sets,
  }
  return figures, {"ood": plots.histograms(energies_of)}


def _figures(
  config: ml_collections.ConfigDict,
  pair: ood_pairs.Pair,
  scores: dict[str, Sequence[np.ndarray]],
) -> dict[str, Any]:
  """Returns the figures of a pair of sets, given the scores of the hat."""
  rest = config.ood.bootstraps, config.seed
  of_hat = {
    name: {"higher_is_out": True, **ood.record(ood.detection(*both, *rest))}
    for name, both in scores.items()
  }
  baselines = ood.baselines(pair.images_in, pair.images_out, *rest)
  return {
    "num_in": len(pair.images_in),
    "num_out": len(pair.images_out),
    "num_held_out": 0 if pair.held_out is None else len(pair.held_out),
    "resized_to": pair.resized_to,
    "scores": of_hat | baselines,
  }


def _scores(
  scorers: _Scorers, pair: ood_pairs.Pair
) -> dict[str, Sequence[np.ndarray]]:
  """Returns the scores of the hat, those of images_in and of images_out."""
  both = pair.images_in, pair.images_out
  scores = {"energy": [scorers.energy(x) for x in both]}
  gradient_norms, drifts = zip(*map(scorers.with_gradients, both), strict=True)
  scores |= {"gradient_norm": gradient_norms, "drift": drifts}
  if pair.held_out is not None:
    held_out = scorers.energy(pair.held_out)
    scores["typicality"] = [
      hat_scores.typicality(x, held_out) for x in scores["energy"]
    ]
    if scorers.features:
      distances = hat_scores.mahalanobis(
        scorers.features(np.concatenate(both)), scorers.features(pair.held_out)
      )
      scores["mahalanobis"] = np.split(distances, [len(pair.images_in)])
  return scores


def _check(settings: ml_collections.ConfigDict) -> None:
  for name in ("num_images", "bootstraps"):
    if settings[name] < 1:
      raise errors.ConfigError(
        f"config.ood.{name}={settings[name]}: expected 1 or more."
      )


def check(config: ml_collections.ConfigDict) -> None:
  """Checks that all sets of images can be opened, and reads an image of each.

  Args:
    config: Config of the run.

  Raises:
    ConfigError: If a field of `config.ood` cannot be used.
    DataError: If a set is missing or cannot be read. The message names it.
  """
  _check(config.ood)
  data.open_native(config.data, "test")
  for source in config.ood.sets:
    if source in ood_pairs.MADE:
      continue
    try:
      opened = data.open_native(*ood_pairs.open_outside(config, source))
      next(iter(opened.read([0])))
    except data.DataError as error:
      raise data.DataError(f"config.ood.sets: {source!r}: {error}") from error
