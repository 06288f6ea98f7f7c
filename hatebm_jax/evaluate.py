"""Measures a trained run and writes evaluation.json."""

import json
import pathlib
from typing import Any

import jax
import ml_collections

from hatebm_jax import data, errors, sample, workdir
from hatebm_jax.metrics import digits_judge


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
  result = {
    "checkpoint_step": restored.step,
    "weights": config.sample.weights,
    "seed": config.seed,
    "num_images": len(drawn.samples),
    "langevin": sample.settings(config)._asdict() if has_hat else None,
    **judge_digits(config, drawn, has_hat),
  }
  if jax.process_index() == 0:
    workdir.write_atomic(
      path / "evaluation.json", json.dumps(result, indent=2) + "\n"
    )
    print(_table(result))
    print(f"Written to {path / 'evaluation.json'}", flush=True)
  return result


def judge_digits(
  config: ml_collections.ConfigDict, drawn: sample.Drawn, has_hat: bool = True
) -> dict[str, Any]:
  """Judges samples, the generator's images and the held-out digits.

  Without a hat there are no samples but the generator's images.
  """
  splits = {
    split: (
      data.load_all(data.open_source(config.data, split)),
      data.digits_labels(split),
    )
    for split in ("train", "test")
  }
  judge = digits_judge.fit(*splits["train"])
  held_out, labels = splits["test"]
  sets = {"hat": drawn.samples} if has_hat else {}
  sets |= {"generator": drawn.generated, "held_out": held_out}
  return {
    "judge_accuracy": digits_judge.accuracy(judge, held_out, labels),
    "num_held_out": len(labels),
    "sets": {
      name: digits_judge.verdict(judge, images)._asdict()
      for name, images in sets.items()
    },
  }


def _table(result: dict[str, Any]) -> str:
  """Lays the figures out for people."""
  sets = result["sets"]
  real = sets["held_out"]["recognised"]
  names = {
    "hat": "hat samples",
    "generator": "generator alone",
    "held_out": "held-out digits",
  }
  lines = [
    f"Judge: a classifier of the real digits, {result['judge_accuracy']:.1%} "
    f"right on {result['num_held_out']} held-out ones; an image is recognised "
    f"when it is over {digits_judge.SURE:.0%} sure.",
    f"{'':>16}  {'recognised':>10}  {'of real':>8}  {'rarest digit':>12}",
  ]
  for key, figures in sets.items():
    share = figures["recognised"]
    lines.append(
      f"{names[key]:>16}  {share:>10.1%}  {share / real:>8.1%}  "
      f"{figures['rarest']:>12.1%}"
    )
  return "\n".join(lines)
