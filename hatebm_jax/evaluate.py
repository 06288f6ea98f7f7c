"""Measures a trained run and writes evaluation.json."""

import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from hatebm_jax import data, errors, sample, workdir
from hatebm_jax.metrics import digits_judge, digits_network, frechet

# What people call the sets of evaluation.json.
_LABELS = {
  "hat": "hat samples",
  "generator": "generator alone",
  "held_out": "held-out digits",
}


def has_measure(config: ml_collections.ConfigDict) -> bool:
  """Says whether there is a measure for the config's data."""
  return config.data.source == "digits"


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
    ConfigError: if there is no measure for the run's data.
  """
  config = restored.config
  if not has_measure(config):
    raise errors.ConfigError(
      f"config.data.source={config.data.source!r}: samples can be measured "
      "for 'digits'. For other data draw samples with --mode=sample and give "
      "the npz to the tool of your choice."
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
    **measure_digits(config, sets),
  }
  if jax.process_index() == 0:
    workdir.write_atomic(
      path / "evaluation.json", json.dumps(result, indent=2) + "\n"
    )
    print(table(result))
    print(f"Written to {path / 'evaluation.json'}", flush=True)
  return result


def measure_digits(
  config: ml_collections.ConfigDict, sets: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Measures sets of digit images, and the held-out digits beside them.

  Args:
    config: of the data.
    sets: uint8 `[n, height, width, channels]`, by name.

  Returns:
    Figures of each set, `held_out` added: those of `digits_judge.Verdict`, and
    `fd_digits`, the Frechet distance to the training digits in the features of
    `digits_network`. Distances of few images are biased upwards: compare sets
    of one size.
  """
  train, held_out = (
    data.load_all(data.open_source(config.data, split))
    for split in ("train", "test")
  )
  labels = data.digits_labels("test")
  judge = digits_judge.fit(train, data.digits_labels("train"))
  reference = frechet.moments(digits_network.features(train))

  def measure(images):
    found = frechet.moments(digits_network.features(images))
    return {
      "num_images": len(images),
      **digits_judge.verdict(judge, images)._asdict(),
      "fd_digits": frechet.distance(*reference[:2], *found[:2]),
    }

  return {
    "judge_accuracy": digits_judge.accuracy(judge, held_out, labels),
    "num_reference": reference.count,
    "sets": {
      name: measure(images)
      for name, images in (sets | {"held_out": held_out}).items()
    },
  }


def table(result: dict[str, Any]) -> str:
  """Lays the figures of `measure_digits` out for people."""
  sets = result["sets"]
  real = sets["held_out"]["recognised"]
  labels = {name: _LABELS.get(name, name) for name in sets}
  width = max(map(len, labels.values()))
  lines = [
    f"Recognised: a classifier, {result['judge_accuracy']:.1%} right on "
    f"held-out digits, is over {digits_judge.SURE:.0%} sure of its digit. "
    "FD-digits: Frechet distance to the training digits in the features of a "
    "small network; it is no FID.",
    f"{'':>{width}}  images  recognised  of real  rarest digit  FD-digits",
  ]
  for name, figures in sets.items():
    share = figures["recognised"]
    lines.append(
      f"{labels[name]:>{width}}  {figures['num_images']:>6}  {share:>10.1%}  "
      f"{share / real:>7.1%}  {figures['rarest']:>12.1%}  "
      f"{figures['fd_digits']:>9.1f}"
    )
  return "\n".join(lines)
