"""The hat that a config describes."""

import jax.numpy as jnp
import ml_collections

from hatebm_jax import networks
from hatebm_jax.models import hat as hat_lib


def make(
  config: ml_collections.ConfigDict, hat: networks.Hat | None = None
) -> networks.Hat:
  """Returns the hat of a run.

  Args:
    config: Config of the run.
    hat: Hat that the user gives; None: the paper's, which the config describes.

  Raises:
    ConfigError: If the hat does not exist for the config's image size and
      width, or the given one does not fit the images.
  """
  size = config.data.image_size
  if hat is None:
    return networks.linen_hat(
      hat_lib.make(size, config.model.width, jnp.dtype(config.model.dtype))
    )
  networks.check_hat(hat, (size, size, config.data.channels))
  return hat
