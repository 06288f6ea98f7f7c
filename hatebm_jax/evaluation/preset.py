"""Protocols of an evaluation: `quick`, and `paper` for the paper's number.

`config.metrics.protocol` names one. `quick` measures what the other fields say.
`paper` sets these fields as the published figures need them.
"""

import importlib

import ml_collections

from hatebm_jax import config as config_lib
from hatebm_jax import errors

# Samples are 520 batches of 96. They are compared with as many training images.
NUM_IMAGES = 520 * 96
_REPEATS = 3
# The configs that follow the paper, and the fields that tell them apart.
_PUBLISHED = (
  "celeba64",
  "celeba64_refine",
  "celeba64_sngan",
  "cifar10",
  "cifar10_refine",
  "cifar10_retrofit",
  "cifar10_sngan",
  "imagenet128",
  "imagenet128_large",
)
_IDENTITY = (
  "objective",
  "data.source",
  "data.image_size",
  "model.width",
  "generator.kind",
  "langevin.annealing",
)


def is_paper(config: ml_collections.ConfigDict) -> bool:
  """Returns whether a config asks for the protocol of the paper."""
  return config.metrics.protocol == "paper"


def apply(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns a config with the fields that its protocol sets.

  `paper` sets the number of images and of reference images, the split, three
  repeats unless there are more, and for an experiment of the paper the raw
  weights and the Langevin chains of its published config. Another run keeps
  its own weights and chains.

  Args:
    config: Config of an evaluation; it is not changed.

  Raises:
    ConfigError: If the protocol is the paper's and the reference is a file of
      statistics.
  """
  if not is_paper(config):
    return config
  if config.metrics.statistics:
    raise errors.ConfigError(
      "config.metrics.protocol='paper' compares with training images, found "
      f"config.metrics.statistics={config.metrics.statistics!r}. Leave one of "
      "them out."
    )
  result = config.copy_and_resolve_references()
  with result.unlocked():
    result.sample.num_images = result.metrics.num_references = NUM_IMAGES
    result.metrics.split = "train"
    result.metrics.repeats = max(result.metrics.repeats, _REPEATS)
    if published := _published(config):
      result.sample.weights = "raw"
      result.evaluate = published.evaluate
  return result


def changes(
  before: ml_collections.ConfigDict, after: ml_collections.ConfigDict
) -> str:
  """Returns which fields a protocol has set, as one line; '' if none."""
  found = [
    f"config.{name} {old} -> {new}"
    for name, _ in config_lib.fields()
    if (old := config_lib.get(before, name))
    != (new := config_lib.get(after, name))
  ]
  return f"The protocol of the paper sets {', '.join(found)}." if found else ""


def _published(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict | None:
  """Returns the published config of a run's experiment, if it is one."""
  for name in _PUBLISHED:
    module = importlib.import_module(f"hatebm_jax.configs.{name}")
    paper = module.get_config()
    if all(
      config_lib.get(config, field) == config_lib.get(paper, field)
      for field in _IDENTITY
    ):
      return paper
  return None
