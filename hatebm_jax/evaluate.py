"""Measures a trained run and writes evaluation.json."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from hatebm_jax import data, errors, sample, workdir
from hatebm_jax.metrics import digits_judge, digits_network, frechet, resnet10

# What people call the sets of evaluation.json.
_LABELS = {
  "hat": "hat samples",
  "generator": "generator alone",
  "held_out": "held-out images",
}

# Columns of the table: title and format of a figure.
_COLUMNS = {
  "num_images": ("images", "d"),
  "recognised": ("recognised", ".1%"),
  "rarest": ("rarest digit", ".1%"),
  "fd_digits": ("FD-digits", ".1f"),
  "fd_resnet10": ("FD-ResNet10", ".3f"),
}


def has_measure(config: ml_collections.ConfigDict) -> bool:
  """Says whether there is a measure for the config's data."""
  settings = config.data
  shape = (settings.image_size, settings.image_size, settings.channels)
  return settings.source == "digits" or shape == resnet10.IMAGE_SHAPE


def write(
  restored: sample.Restored, path: pathlib.Path, drawn: sample.Drawn
) -> dict[str, Any]:
  """Judges drawn images, prints a table and writes evaluation.json.

  Args:
    restored: from `sample.restore`.
    path: the workdir.
    drawn: from `sample.draw`.

  Returns:
    What was written: the protocol and the figures.

  Raises:
    ConfigError: if there is no measure for the run's data, or for one image.
  """
  config = restored.config
  if not has_measure(config):
    raise errors.ConfigError(
      f"config.data.source={config.data.source!r}: samples can be measured "
      "for 'digits' and for colour images of 32 pixels. For other data draw "
      "samples with --mode=sample and give the npz to the tool of your choice."
    )
  if len(drawn.samples) < 2:
    raise errors.ConfigError(
      f"config.sample.num_images={len(drawn.samples)}: expected 2 or more, to "
      "measure how they differ."
    )
  has_hat = restored.networks.hat is not None
  # Without a hat there are no samples but the generator's images.
  sets = {"hat": drawn.samples} if has_hat else {}
  sets |= {"generator": drawn.generated}
  result = {
    "checkpoint_step": restored.step,
    "weights": config.sample.weights,
    "seed": config.seed,
    "num_images": len(drawn.samples),
    "langevin": sample.settings(config)._asdict() if has_hat else None,
    **measure(config, sets),
  }
  if jax.process_index() == 0:
    workdir.write_atomic(
      path / "evaluation.json", json.dumps(result, indent=2) + "\n"
    )
    print(table(result))
    print(f"Written to {path / 'evaluation.json'}", flush=True)
  return result


def measure(
  config: ml_collections.ConfigDict, sets: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Measures sets of images, and the held-out images beside them.

  Args:
    config: of the data.
    sets: uint8 `[n, height, width, channels]`, by name.

  Returns:
    Figures of each set, `held_out` added where the data have a test split:
    the Frechet distance to the training images as `fd_digits` or `fd_resnet10`,
    of digits those of `digits_judge.Verdict` too. Distances of few images are
    biased upwards: compare sets of one size.
  """
  train = data.load_all(data.open_source(config.data, "train"))
  sets = sets | _held_out(config)
  if config.data.source == "digits":
    judge = digits_judge.fit(train, data.digits_labels("train"))
    distance = _distance_to(train, digits_network.features)
    labels = data.digits_labels("test")
    accuracy = digits_judge.accuracy(judge, sets["held_out"], labels)
    figures = lambda images: {
      **digits_judge.verdict(judge, images)._asdict(),
      "fd_digits": distance(images),
    }
    protocol = {"judge_accuracy": accuracy}
  else:
    distance = _distance_to(train, resnet10.features)
    figures = lambda images: {"fd_resnet10": distance(images)}
    protocol = {}
  return {
    **protocol,
    "num_reference": len(train),
    "sets": {
      name: {"num_images": len(images), **figures(images)}
      for name, images in sets.items()
    },
  }


def _held_out(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """Returns the images of the test split; nothing, if there is none."""
  try:
    source = data.open_source(config.data, "test")
  except data.DataError as error:
    logging.warning("No held-out images to compare with: %s", error)
    return {}
  return {"held_out": data.load_all(source)}


def _distance_to(
  reference: np.ndarray, features: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], float]:
  """Returns the Frechet distance of images to reference images."""
  expected = frechet.moments(features(reference))

  def distance(images):
    found = frechet.moments(features(images))
    return frechet.distance(*expected[:2], *found[:2])

  return distance


def table(result: dict[str, Any]) -> str:
  """Lays the figures of `measure` out for people."""
  sets = result["sets"]
  labels = {name: _LABELS.get(name, name) for name in sets}
  width = max(map(len, labels.values()))
  columns = [key for key in _COLUMNS if key in next(iter(sets.values()))]
  titles = [_COLUMNS[key][0] for key in columns]
  lines = [
    f"{titles[-1]}: Frechet distance to the {result['num_reference']} training "
    "images in the features of a small network; it is no FID."
  ]
  if "judge_accuracy" in result:
    lines.append(
      f"Recognised: a classifier, {result['judge_accuracy']:.1%} right on "
      f"held-out digits, is over {digits_judge.SURE:.0%} sure of the digit."
    )
  lines.append("  ".join([" " * width, *titles]))
  for name, figures in sets.items():
    cells = [
      f"{figures[key]:>{len(title)}{_COLUMNS[key][1]}}"
      for key, title in zip(columns, titles, strict=True)
    ]
    lines.append("  ".join([f"{labels[name]:>{width}}", *cells]))
  return "\n".join(lines)
