"""Detects out-of-distribution (OOD) images by the energy of a trained hat."""

from typing import Any, NamedTuple

import ml_collections
import numpy as np

from hatebm_jax import data, errors, sample
from hatebm_jax.evaluation import energies, plots
from hatebm_jax.metrics import ood


class Pair(NamedTuple):
  """Two sets of images that were treated alike.

  Attributes:
    images_in: In-distribution images, uint8 `[n, height, width, channels]`.
    images_out: OOD images, uint8 `[m, height, width, channels]`.
    names: Names of the two sets.
    resized_to: Size that both were brought to first, in pixels. It is the
      lowest of the two resolutions and the size of the hat's images.
  """

  images_in: np.ndarray
  images_out: np.ndarray
  names: tuple[str, str]
  resized_to: int


def measure(
  restored: sample.Restored,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Measures how well the energy tells `config.ood.sets` from the test split.

  The score is H(x), which is low in the distribution. Both sets are first
  brought to the lower resolution of the two. If one side alone were resized,
  the resize would be detected.

  Args:
    restored: Run that has a hat.

  Returns:
    The group `ood` of evaluation.json, and the picture `ood`: histograms of the
    energies, uint8 `[height, width, 3]`.

  Raises:
    ConfigError: If a field of `config.ood` cannot be used.
    DataError: If a set cannot be read.
  """
  settings = restored.config.ood
  _check(settings)
  sets, scores_of = {}, {}
  for source in settings.sets:
    pair = load_pair(restored.config, source)
    images = pair.images_in, pair.images_out
    scores = [energies.compute(restored, x) for x in images]
    rest = settings.bootstraps, restored.config.seed
    found = ood.record(ood.detection(*scores, *rest))
    scores_of[pair.names[1]] = scores
    sets[pair.names[1]] = {
      "num_in": len(pair.images_in),
      "num_out": len(pair.images_out),
      "resized_to": pair.resized_to,
      "scores": {
        "energy": {"higher_is_out": True, **found},
        **ood.baselines(*images, *rest),
      },
    }
  figures = {"in_distribution": pair.names[0], "sets": sets}
  return figures, {"ood": plots.histograms(scores_of)}


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
    outside = _outside(config, source)
    try:
      opened = data.open_native(outside, _split(outside))
      next(iter(opened.read([0])))
    except data.DataError as error:
      raise data.DataError(f"config.ood.sets: {source!r}: {error}") from error


def _outside(
  config: ml_collections.ConfigDict, source: str
) -> ml_collections.ConfigDict:
  """Returns `config.data` for a set of OOD images."""
  outside = config.data.copy_and_resolve_references()
  outside.source = source
  # The names of the run's own splits and feature are not those of another set.
  outside.update(train_split="", test_split="", feature="")
  return outside


def load_pair(config: ml_collections.ConfigDict, source: str) -> Pair:
  """Reads in-distribution test images and OOD images, treated alike.

  Args:
    config: Config of the run.
    source: Source of the OOD images, written as `config.data.source` is. Its
      test split is used, or all of its images if it has no test split.
  """
  inside = config.data.copy_and_resolve_references()
  outside = _outside(config, source)
  splits = "test", _split(outside)
  both = list(zip((inside, outside), splits, strict=True))
  size = min(config.data.image_size, *(data.native_size(*x) for x in both))
  both_images, names = [], []
  for settings, split in both:
    settings.image_size = size
    opened = data.open_split(settings, split)
    chosen = data.choose_images(opened, config.ood.num_images)
    both_images.append(data.resize(chosen, config.data.image_size))
    names.append(opened.name)
  return Pair(*both_images, tuple(names), size)


def _split(settings: ml_collections.ConfigDict) -> str:
  """Returns `test`, or `train` if the source has no test images."""
  try:
    data.open_native(settings, "test")
  except data.DataError:
    return "train"
  return "test"
