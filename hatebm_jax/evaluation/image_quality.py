"""Measures sets of images against reference images.

The figures of a set are those of all metrics of sets of images in
`hatebm_jax.metrics`, in the features of the network that
`hatebm_jax.metrics.feature_spaces` chooses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging

from hatebm_jax import data, errors, metrics
from hatebm_jax.evaluation import gathering, preset, protocol
from hatebm_jax.metrics import (
  feature_spaces,
  frechet,
  inception,
  metric,
  moments,
  recognised_digits,
)
from hatebm_jax.run import files

# Held-out images are as many as the samples, but at least this many.
_LEAST_HELD_OUT = 1_000


class Reference(NamedTuple):
  """What images are measured against.

  Attributes:
    space: Network whose features are compared.
    found: Features of the reference images.
    protocol: Record of which images these are.
  """

  space: feature_spaces.Space
  found: metric.Reference
  protocol: dict[str, Any]

  def distance(self, images: np.ndarray) -> float:
    """Returns the Frechet distance of uint8 images `[n, h, w, channels]`."""
    gathered = gathering.Gathered(self.space, len(images))
    gathered.add(images)
    one, other = self.found.moments, gathered.sample().moments
    return frechet.distance(*one[:2], *other[:2])


def image_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
  """Returns height, width and channels of the images of `config.data`."""
  return config.image_size, config.image_size, config.channels


def has_network(config: ml_collections.ConfigDict) -> bool:
  """Returns whether there is a network to measure a run's images in.

  The protocol of the paper asks for one; `choose_space` says if it is missing.
  """
  if preset.is_paper(config):
    return True
  source, shape = config.data.source, image_shape(config.data)
  settings = config.metrics
  return feature_spaces.exists(
    source, shape, settings.inception, settings.network
  )


def choose_space(config: ml_collections.ConfigDict) -> feature_spaces.Space:
  """Returns the network that a run's images are measured in.

  Raises:
    ConfigError: If there is none, or its weights cannot be used, or the
      protocol of the paper asks for others.
  """
  if preset.is_paper(config) and not config.metrics.inception:
    raise errors.ConfigError(
      "config.metrics.protocol='paper': expected the weights of the Inception "
      "network of 2015, found none. Name their file with "
      f"--config.metrics.inception=FILE. {inception.WHERE}"
    )
  source, shape = config.data.source, image_shape(config.data)
  settings = config.metrics
  return feature_spaces.choose(
    source, shape, settings.inception, settings.network
  )


def load_reference(
  config: ml_collections.ConfigDict, space: feature_spaces.Space | None = None
) -> Reference:
  """Measures the reference images, or reads their moments from a file.

  Args:
    config: Config whose groups `data` and `metrics` are used.
    space: Network that `choose_space(config)` returned; None chooses it here.

  Raises:
    ConfigError: If there is no network for the images, or
      `config.metrics.statistics` cannot be used.
    DataError: If the images cannot be read.
  """
  space, settings = space or choose_space(config), config.metrics
  record = protocol.of_data(config) | {
    "split": settings.split,
    "network": space.name,
    "network_sha256": files.sha256(space.weights),
  }
  for module in metrics.all_metrics():
    record |= getattr(module, "PROTOCOL", {})
  if settings.statistics:
    found = moments.load(settings.statistics, space.dim), None
    statistics = protocol.file_record(settings.statistics)
    record |= {"split": None, "statistics": statistics}
  else:
    source, num_images = open_reference(config)
    found = _features_of_split(source, num_images, space)
    record |= {"source": source.name, "split_images": source.num_images}
  # A file of another tool does not say how many images it describes.
  record["num_reference"] = found[0].count or None
  judge, accuracy = _fit_judge(config.data)
  if judge is not None:
    record["judge_accuracy"] = accuracy
  return Reference(space, metric.Reference(space.name, *found, judge), record)


def other_reference(
  config: ml_collections.ConfigDict, first: Reference, repeat: int
) -> Reference:
  """Returns a reference of another random choice of images.

  Args:
    config: Config whose groups `data` and `metrics` are used.
    first: Reference that `load_reference(config)` returned.
    repeat: Number of the choice. That of `first` is 0.

  Raises:
    DataError: If the images cannot be read.
  """
  found = _features_of_split(*open_reference(config), first.space, repeat)
  names = "moments", "features"
  changed = first.found._replace(**dict(zip(names, found, strict=True)))
  return first._replace(found=changed)


def _fit_judge(config: ml_collections.ConfigDict) -> tuple[Any, float | None]:
  """Fits a judge to the training split if its labels are known.

  Returns:
    The judge and its accuracy on the test split, or None and None.
  """
  labels = data.labels(config, "train")
  if labels is None:
    return None, None
  train = data.load_all(data.open_split(config, "train"))
  judge = recognised_digits.fit(train, labels)
  held_out = data.load_all(data.open_split(config, "test"))
  return judge, recognised_digits.accuracy(
    judge, held_out, data.labels(config, "test")
  )


def open_reference(
  config: ml_collections.ConfigDict,
) -> tuple[data.Source, int]:
  """Opens the split of the reference images, and reads none.

  Args:
    config: Config whose groups `data` and `metrics` are used.

  Returns:
    The split, and how many of its images are the reference.

  Raises:
    ConfigError: If `config.metrics.num_references` exceeds the split.
    DataError: If the split is missing or cannot be read.
  """
  source = data.open_split(config.data, config.metrics.split)
  num_images = config.metrics.num_references or source.num_images
  if not 2 <= num_images <= source.num_images:
    raise errors.ConfigError(
      f"config.metrics.num_references={num_images}: expected 2 to "
      f"{source.num_images}, the number of images in {source.name}."
    )
  return source, num_images


def _order(num_images: int, repeat: int = 0) -> np.ndarray:
  """Returns the order in which images of a split are taken, the same always."""
  return np.random.default_rng(repeat).permutation(num_images)


def _features_of_split(
  source: data.Source,
  num_images: int,
  space: feature_spaces.Space,
  repeat: int = 0,
) -> tuple[moments.Moments, np.ndarray]:
  """Returns moments and features of the reference split, read in one pass."""
  chosen = np.sort(_order(source.num_images, repeat)[:num_images])
  chunks = data.in_order(source, chosen, space.batch_size)
  chunks = tqdm.tqdm(
    chunks,
    f"features of {source.name}",
    -(-num_images // space.batch_size),
    unit="batch",
    delay=2,  # seconds, so that small sets show no bar
    disable=jax.process_index() > 0,
  )
  found = gathering.Gathered(space, num_images)
  for images in chunks:
    found.add(images)
  sample = found.sample()
  return sample.moments, sample.features


def measure_sets(
  config: ml_collections.ConfigDict,
  sets: Mapping[str, Sequence[np.ndarray]],
  reference: Reference | None = None,
) -> dict[str, Any]:
  """Measures sets of images, and the held-out images as one more set.

  Args:
    config: Config whose groups `data` and `metrics` are used.
    sets: Sets by name. A set is a sequence of repeats, each of them uint8
      `[n, height, width, channels]`.
    reference: Reference that `load_reference(config)` returned; None measures
      it here.

  Returns:
    A dictionary of `protocol`, the protocol of the reference, and `sets`. An
    entry of `sets` holds `num_images` and, for each figure, its mean, standard
    deviation (with n - 1; None for a single repeat) and values over the
    repeats. The set `held_out` is there if the data have a test split and the
    images have the size of `config.data`. Frechet
    distances of few images are biased upwards, so only sets of one size should
    be compared.
  """
  reference = reference or load_reference(config)
  measured = {
    name: _entry(
      [
        measure_batches(reference, [{name: images}], len(images))[name]
        for images in repeats
      ],
      len(repeats[0]),
    )
    for name, repeats in sets.items()
  }
  if next(iter(sets.values()))[0].shape[1:] == image_shape(config.data):
    measured |= held_out(config, reference)
  return {"protocol": reference.protocol, "sets": measured}


def measure_repeats(
  config: ml_collections.ConfigDict,
  draw: Callable[[int], Iterable[Mapping[str, np.ndarray]]],
  reference_of: Callable[[int], Reference],
) -> dict[str, Any]:
  """Measures sets of images as they are drawn; they need not fit into memory.

  Args:
    config: Config whose groups `data`, `metrics` and `sample` are used.
    draw: Function that draws one of `config.metrics.repeats` repeats. It yields
      batches of `config.sample.num_images` images by the name of their set.
    reference_of: Function that returns the reference of a repeat.

  Returns:
    A dictionary as that of `measure_sets`, without the held-out images.
  """
  num_images, rows = config.sample.num_images, []
  for repeat in range(config.metrics.repeats):
    reference = reference_of(repeat)
    rows.append(measure_batches(reference, draw(repeat), num_images))
  measured = {
    name: _entry([row[name] for row in rows], num_images) for name in rows[0]
  }
  return {"protocol": reference_of(0).protocol, "sets": measured}


def measure_batches(
  reference: Reference,
  batches: Iterable[Mapping[str, np.ndarray]],
  num_images: int,
) -> dict[str, dict[str, float]]:
  """Returns the figures of all metrics of sets that come in batches.

  Args:
    reference: Reference to compare with.
    batches: Batches of images by the name of their set, uint8
      `[n, height, width, channels]`.
    num_images: Number of images of a set.
  """
  sets: dict[str, gathering.Gathered] = {}
  for batch in batches:
    for name, images in batch.items():
      if name not in sets:
        sets[name] = gathering.Gathered(reference.space, num_images)
      sets[name].add(images)
  # A set is dropped when it was measured, before the next one.
  return {name: _figures(reference, sets.pop(name)) for name in list(sets)}


def _entry(
  rows: Sequence[Mapping[str, float]], num_images: int
) -> dict[str, Any]:
  """Returns the entry of a set in evaluation.json."""
  return {"num_images": num_images, **_over_repeats(rows)}


def _over_repeats(
  rows: Sequence[Mapping[str, float]],
) -> dict[str, dict[str, Any]]:
  """Returns mean, spread and values of each figure over the repeats."""
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


def _figures(
  reference: Reference, gathered: gathering.Gathered
) -> dict[str, float]:
  """Returns the figures of all metrics for one set of images."""
  sample = gathered.sample()
  result = {}
  for module in metrics.all_metrics():
    result |= module.figures(sample, reference.found)
  return result


def held_out(
  config: ml_collections.ConfigDict, reference: Reference
) -> dict[str, dict[str, Any]]:
  """Returns the entry `held_out` of evaluation.json.

  Args:
    config: Config whose group `data` is used.
    reference: Reference to compare with.

  Returns:
    The figures of images of the test split that are no reference images;
    nothing if there are none. They are as many as the samples, and at least
    1,000, if the split has as many.
  """
  try:
    source = data.open_split(config.data, "test")
    chosen = _held_out_indices(config, source.num_images)
    if len(chosen) < 2:
      return {}
    chunks = data.in_order(source, chosen, reference.space.batch_size)
    batches = ({"held_out": images} for images in chunks)
    found = measure_batches(reference, batches, len(chosen))
  except data.DataError as error:
    logging.warning("There are no held-out images to compare with: %s", error)
    return {}
  return {"held_out": _entry([found["held_out"]], len(chosen))}


def _held_out_indices(
  config: ml_collections.ConfigDict, num_images: int
) -> np.ndarray:
  """Returns which of the images of the test split are the held-out images."""
  settings = config.metrics
  order = _order(num_images)
  if settings.split == "test" and not settings.statistics:
    # The first ones are the reference.
    order = order[settings.num_references or num_images :]
  wanted = max(config.sample.num_images, _LEAST_HELD_OUT)
  return np.sort(order[: min(wanted, gathering.MAX_FEATURES)])
