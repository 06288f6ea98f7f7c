"""Checks before a run is trained or drawn from whether it can be evaluated.

An evaluation needs weights, reference images, statistics and other data sets.
If one of them is missing or wrong, this is said before hours of training or
sampling and not after them.
"""

import ml_collections

from hatebm_jax import data, errors, objectives, sharding
from hatebm_jax.evaluation import image_quality, out_of_distribution, preset
from hatebm_jax.metrics import feature_spaces, moments


def check(
  config: ml_collections.ConfigDict, has_hat: bool | None = None
) -> feature_spaces.Space | None:
  """Checks that an evaluation will find what it needs.

  Files are opened, and a few images are read. Nothing is measured.

  Args:
    config: Config of the run, with the fields of the command.
    has_hat: Whether the run has a hat; None asks the run's objective.

  Returns:
    The network that images are measured in; None if no images are.

  Raises:
    ConfigError: If a file or a field of the config cannot be used, or a run
      without a hat has no network to measure its images in.
    ConvertError: If the weights of the Inception network cannot be read.
    DataError: If a set of images is missing or cannot be read.
  """
  config, space = preset.apply(config), None
  # A run without a hat has nothing else to measure than its images.
  if image_quality.has_network(config) or has_hat is False:
    check_count(config.sample.num_images, "config.sample.num_images")
    space = image_quality.choose_space(config)
    if config.metrics.statistics:
      moments.load(config.metrics.statistics, space.dim)
    else:
      image_quality.open_reference(config)
  if config.ood.sets:
    if has_hat is None:
      objective = objectives.make(config, sharding.make_mesh())
      has_hat = objective.networks.hat is not None
    if has_hat:
      out_of_distribution.check(config)
  if has_hat and config.chains.num_chains:
    data.open_native(config.data, "train")
  return space


def check_count(num_images: int, field: str) -> None:
  """Refuses to measure fewer than two images.

  Args:
    num_images: Number of images.
    field: Start of the error message: the field that names the number.

  Raises:
    ConfigError: If there are fewer.
  """
  if num_images < 2:
    raise errors.ConfigError(
      f"{field}: expected 2 or more images, because figures measure how images "
      f"differ; found {num_images}."
    )
