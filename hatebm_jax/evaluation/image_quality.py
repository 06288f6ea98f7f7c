"""Measures sets of images against reference images.

A set's figures are those of metrics/, in the features of the network that
metrics/spaces.py chooses for the run's images.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging

import hatebm_jax
from hatebm_jax import data, errors
from hatebm_jax.metrics import (
  batches,
  digits_judge,
  frechet,
  inception,
  inception_score,
  kid,
  precision_recall,
  spaces,
)

# Features kept for what needs more than moments: KID, precision and recall.
_MAX_KEPT = 10_000
_KID_SUBSET = 1_000  # images; of 100 subsets
_NEIGHBOURS = 5  # of precision and recall


class Features(NamedTuple):
  """What is kept of a set of images.

  Attributes:
    moments: of all features.
    features: of 10,000 images at most, in random order, `[n, dim]`; None: the
      moments were read from a file.
    logits: of all images, `[n, num_classes]`; None: not kept.
  """

  moments: frechet.Moments
  features: np.ndarray | None = None
  logits: np.ndarray | None = None


class Reference(NamedTuple):
  """What images are measured against.

  Attributes:
    space: the network.
    found: features of the reference images.
    protocol: which images these are.
  """

  space: spaces.Space
  found: Features
  protocol: dict[str, Any]

  def distance(self, images: np.ndarray) -> float:
    """Frechet distance of uint8 images `[n, height, width, channels]`."""
    found = _extract(
      self.space, batches.split(images, self.space.batch_size), len(images)
    )
    return _distance(self, found)


def load_reference(
  config: ml_collections.ConfigDict, space: spaces.Space | None = None
) -> Reference:
  """Measures the reference images, or reads their moments.

  Args:
    config: its `data` and `metrics`.
    space: `spaces.choose(config)` where that is at hand.

  Raises:
    ConfigError: if there is no network for the images, or
      `config.metrics.statistics` cannot be used.
    DataError: if the images cannot be read.
  """
  space, settings = space or spaces.choose(config), config.metrics
  record = protocol(config) | {
    "split": settings.split,
    "network": space.name,
    "network_sha256": spaces.sha256(space.weights),
    "precision_recall_neighbours": _NEIGHBOURS,
  }
  if settings.statistics:
    found = Features(frechet.load(settings.statistics, space.dim))
    record |= {
      "split": None,
      "statistics": {
        "file": pathlib.Path(settings.statistics).name,
        "sha256": spaces.sha256(settings.statistics),
      },
    }
  else:
    found = _of_split(config, space)
  # A file of another tool does not say how many images it is of.
  record["num_reference"] = found.moments.count or None
  return Reference(space, found, record)


def protocol(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns what images are compared with, as far as the config alone says."""
  return {
    "data": config.data.source,
    "split": None,
    "num_reference": None,
    "image_size": config.data.image_size,
    "channels": config.data.channels,
    "resize": "images of another size: centre square, bilinear with antialias",
    "quantised": "uint8, after clip and round",
    "network": None,
    "network_sha256": None,
    "statistics": None,
    "hatebm_jax": hatebm_jax.__version__,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }


def _of_split(
  config: ml_collections.ConfigDict, space: spaces.Space
) -> Features:
  """Returns the features of the reference split, read in one pass."""
  source = data.open_split(config.data, config.metrics.split)
  num_images = config.metrics.num_references or source.num_images
  if not 2 <= num_images <= source.num_images:
    raise errors.ConfigError(
      f"config.metrics.num_references={num_images}: expected 2 to "
      f"{source.num_images}, the images of {source.name}."
    )
  order = np.random.default_rng(0).permutation(source.num_images)
  chunks = data.in_order(source, np.sort(order[:num_images]), space.batch_size)
  chunks = tqdm.tqdm(
    chunks,
    f"features of {source.name}",
    -(-num_images // space.batch_size),
    unit="batch",
    delay=2,  # seconds: small sets need no bar
    disable=jax.process_index() > 0,
  )
  return _extract(space, chunks, num_images)


def _extract(
  space: spaces.Space,
  chunks: Iterable[np.ndarray],
  num_images: int,
  keep_logits: bool = False,
) -> Features:
  """Streams images through the network; see `Features`."""
  rng = np.random.default_rng(0)
  chosen = np.zeros(num_images, bool)
  chosen[rng.permutation(num_images)[:_MAX_KEPT]] = True
  kept, all_logits = [], []

  def parts():
    start = 0
    for features, logits in space.stream(chunks):
      kept.append(features[chosen[start : start + len(features)]])
      if keep_logits:
        all_logits.append(logits)
      start += len(features)
      yield features

  moments = frechet.running(parts())
  return Features(
    moments,
    rng.permutation(np.concatenate(kept)),
    np.concatenate(all_logits) if keep_logits else None,
  )


def image_sets(
  config: ml_collections.ConfigDict,
  sets: Mapping[str, Sequence[np.ndarray]],
  reference: Reference | None = None,
) -> dict[str, Any]:
  """Measures sets of images, and the held-out images beside them.

  Args:
    config: of the data.
    sets: by name, its repeats: uint8 `[n, height, width, channels]` each.
    reference: from `load_reference(config)`; None: made here.

  Returns:
    `protocol` of the reference, and the figures of all `sets`, with mean,
    standard deviation (n - 1; None of a single one) and values over the
    repeats; `held_out` added where the data have a test split. Distances of few
    images are biased upwards: compare sets of one size.
  """
  reference = reference or load_reference(config)
  functions = [lambda images: _figures(reference, images)]
  record = reference.protocol
  if config.data.source == "digits":
    train = data.load_all(data.open_split(config.data, "train"))
    judge = digits_judge.fit(train, data.digits_labels("train"))
    functions.append(
      lambda images: digits_judge.verdict(judge, images)._asdict()
    )
    held_out = data.load_all(data.open_split(config.data, "test"))
    accuracy = digits_judge.accuracy(
      judge, held_out, data.digits_labels("test")
    )
    record = record | {"judge_accuracy": accuracy}
  measured = {
    name: {
      "num_images": len(repeats[0]),
      **_over_repeats(repeats, functions),
    }
    for name, repeats in (dict(sets) | _held_out(config)).items()
  }
  return {"protocol": record, "sets": measured}


def _over_repeats(
  repeats: Sequence[np.ndarray],
  functions: Sequence[Callable[[np.ndarray], dict[str, float]]],
) -> dict[str, dict[str, Any]]:
  """Returns mean, spread and values of the figures of each repeat."""
  rows = [
    {name: v for function in functions for name, v in function(images).items()}
    for images in repeats
  ]
  result = {}
  for name in rows[0]:
    values = [row[name] for row in rows]
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    result[name] = {
      "mean": float(np.mean(values)),
      "std": std,
      "values": values,
    }
  return result


def _figures(reference: Reference, images: np.ndarray) -> dict[str, float]:
  """Returns what one set of images gets in the reference's space."""
  # KID and the Inception Score are so called in this one space.
  is_inception = reference.space.name == inception.NAME
  chunks = batches.split(images, reference.space.batch_size)
  found = _extract(reference.space, chunks, len(images), is_inception)
  result = {"frechet_distance": _distance(reference, found)}
  if is_inception and len(images) >= inception_score.NUM_SPLITS:
    result["inception_score"] = inception_score.score(found.logits).mean
  if reference.found.features is None:
    return result
  both = reference.found.features, found.features
  smaller = min(map(len, both))
  if is_inception:
    size = min(_KID_SUBSET, smaller)
    result["kid"] = kid.distance(*both, subset_size=size).mean
  if smaller > _NEIGHBOURS:
    # Recall and density depend on how many images either set has.
    equal = (features[:smaller] for features in both)
    result |= precision_recall.measure(*equal, _NEIGHBOURS)._asdict()
  return result


def _distance(reference: Reference, found: Features) -> float:
  return frechet.distance(*reference.found.moments[:2], *found.moments[:2])


def _held_out(
  config: ml_collections.ConfigDict,
) -> dict[str, list[np.ndarray]]:
  """Returns images of the test split; nothing, if there is none."""
  try:
    return {"held_out": [data.load_images(config.data, "test", _MAX_KEPT)]}
  except data.DataError as error:
    logging.warning("No held-out images to compare with: %s", error)
    return {}
