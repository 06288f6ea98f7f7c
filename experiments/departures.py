"""Names every difference between a run and an experiment of the paper.

The files of configs/ hold the published settings. A field of training is
compared unless it is in `_NO_EFFECT`, so a new field is compared too. How
samples were drawn and measured is compared with the record in evaluation.json,
because a command line may have set it.
"""

from typing import Any

import ml_collections

from experiments import published
from hatebm_jax import chains as chains_lib
from hatebm_jax import config as config_lib
from hatebm_jax.config import training
from hatebm_jax.data import celeba

# Fields of training that cannot move a figure, or that are compared elsewhere.
_NO_EFFECT = {
  "seed",  # Another seed is another draw of the same experiment.
  "train.num_steps",  # The step of the checkpoint is compared.
  "train.average_decay",  # Averaged weights are a departure by themselves.
  "train.log_every",
  "train.image_every",
  "train.checkpoint_every",
  "train.checkpoint_minutes",
  "train.keep_checkpoints",
  "train.keep_every",
  "train.test_every",
  "train.on_divergence",  # The number of rollbacks is compared.
  "train.max_rollbacks",
  "train.profile_at",
  "train.steps_per_dispatch",
  "data.source",  # The images that were measured against are compared.
  "data.data_dir",
  "data.cache_dir",
  "data.cache_gib",
  "model.conv_form",  # All forms have the same values, but for rounding.
  "generator.source",  # `published.Column.generator` describes it.
}
_UNKNOWN = "not recorded"
# Files of weights do not say who trained them.
_WEIGHTS = (".npz", ".ckpt")


def of_training(
  config: ml_collections.ConfigDict, paper: ml_collections.ConfigDict
) -> dict[str, tuple[Any, Any]]:
  """Returns the training fields that can move a figure and differ.

  Args:
    config: Config that the run's weights were trained with.
    paper: Published config.

  Returns:
    What the paper asks for and what was found, by the name of the field.
  """
  names = [
    f"{group}.{name}" if group else name
    for group, fields in training.GROUPS.items()
    for name in fields
  ]
  pairs = {
    name: (config_lib.get(paper, name), config_lib.get(config, name))
    for name in names
    if name not in _NO_EFFECT
  }
  return _different(pairs)


def of_chains(
  protocol: dict[str, Any], paper: ml_collections.ConfigDict
) -> dict[str, tuple[Any, Any]]:
  """Returns where the chains of the samples differ from the published ones.

  Args:
    protocol: Protocol of evaluation.json.
    paper: Published config.
  """
  plan = chains_lib.evaluation_plan(paper)
  found = protocol["langevin"]
  pairs = {
    f"evaluate.{name}": (asked, found.get(name, _UNKNOWN))
    for name, asked in chains_lib.record(plan.settings).items()
  }
  for name in ("init_scale_z", "init_scale_y"):
    pairs[f"evaluate.{name}"] = (
      getattr(plan, name),
      protocol.get(name, _UNKNOWN),
    )
  return _different(pairs)


def of_figures(
  protocol: dict[str, Any],
  paper: ml_collections.ConfigDict,
  column: published.Column,
) -> dict[str, tuple[Any, Any]]:
  """Returns where the way of measuring differs from the published one.

  Args:
    protocol: Protocol of evaluation.json.
    paper: Published config.
    column: Column of the published table.
  """
  get = lambda name: protocol.get(name, _UNKNOWN)
  pairs = {
    "images": (published.NUM_IMAGES, get("num_images")),
    "reference images": (published.NUM_IMAGES, get("num_reference")),
    "measure": ("FID", get("network")),
    "SHA-256 of Inception": (published.INCEPTION, get("network_sha256")),
    "data": (paper.data.source, get("data")),
    "split": ("train", get("split")),
    "precision of samples": (paper.model.dtype, get("dtype")),
  }
  if num_images := published.SPLIT_IMAGES.get(paper.data.source):
    pairs["images of the split"] = num_images, get("split_images")
  if paper.data.source == "tfds:celeb_a" and celeba.is_train(get("source")):
    del pairs["data"]  # A folder may hold the same images.
  if column.jpeg:
    found, asked = get("decoder"), published.JPEG_DECODER
    pairs["JPEG decoder"] = asked, asked if asked in found else found
  if protocol["repeats"] > 1:
    pairs["references"] = "new in each repeat", get("references")
  if get("network") != "FID":
    del pairs["SHA-256 of Inception"]  # The measure says that already.
  return _different(pairs) | of_weights(protocol, paper)


def of_weights(
  protocol: dict[str, Any], paper: ml_collections.ConfigDict
) -> dict[str, tuple[Any, Any]]:
  """Returns where the weights differ: raw or averaged, training steps.

  Args:
    protocol: Protocol of evaluation.json.
    paper: Published config.
  """
  pairs = {
    "weights": ("raw", protocol["weights"]),
    "training steps": (paper.train.num_steps, protocol["checkpoint_step"]),
  }
  return _different(pairs)


def of_history(
  protocol: dict[str, Any], num_rollbacks: int
) -> dict[str, tuple[Any, Any]]:
  """Returns what happened in a run that a published run does not have.

  Args:
    protocol: Protocol of evaluation.json.
    num_rollbacks: Number of times that the run has gone back.
  """
  changes = [
    f"{x['field']} {x['from']} to {x['to']} at step {x['step']:,}"
    for x in protocol.get("config_changes") or ()
  ]
  pairs = {
    "changes during training": ("none", "; ".join(changes) or "none"),
    "rollbacks": (0, num_rollbacks),
  }
  return _different(pairs)


def of_generator(
  source: str, column: published.Column
) -> dict[str, tuple[Any, Any]]:
  """Returns whether a hat was put on another generator than the paper's.

  A file of weights may be the paper's: `unknown_generator` says so.

  Args:
    source: `config.generator.source` of the run.
    column: Column of the published table.
  """
  if not column.generator or source.endswith(_WEIGHTS):
    return {}
  found = f"that of {source}" if source else "one that was given in Python"
  return {"generator": (column.generator, found)}


def unknown_generator(source: str, column: published.Column) -> str:
  """Returns a sentence about a generator that came from a file, or ''."""
  if not column.generator or not source.endswith(_WEIGHTS):
    return ""
  return (
    f"The paper's hat is on {column.generator}; whether {source} is that is "
    "not known. "
  )


def text(pairs: dict[str, tuple[Any, Any]]) -> str:
  """Returns departures as text, such as `images 49,920 (found 1,000)`."""
  return ", ".join(
    f"{what} {_value(asked)} (found {_value(found)})"
    for what, (asked, found) in pairs.items()
  )


def _different(pairs: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
  return {
    name: (asked, found)
    for name, (asked, found) in pairs.items()
    if asked != found
  }


def _value(value: Any) -> str:
  """Returns a setting as text, such as 49,920, 0.001 or none."""
  if value is None:
    return "none"
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  if isinstance(value, str) and len(value) == 64:
    return f"{value[:8]}..."  # Eight digits tell one SHA-256 from another.
  return str(value)
