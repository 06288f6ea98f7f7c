"""The hat that a config describes."""

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from hatebm_jax import models, networks


def make(
  config: ml_collections.ConfigDict, hat: networks.Hat | None = None
) -> networks.Hat:
  """Returns the hat of a run.

  Args:
    config: Config of the run.
    hat: Hat of the user's own; None: the one that `config.hat.kind` names.

  Raises:
    ConfigError: If the hat does not exist for the config's image size and
      width, or the given one does not fit the images.
  """
  size = config.data.image_size
  # The package's own hat fits all sizes. A check would delay every start.
  fits = hat is None and config.hat.kind == "hat"
  if hat is None:
    module = models.choose("config.hat.kind", config.hat.kind, "make")
    hat = module.make(size, config.model.width, jnp.dtype(config.model.dtype))
    hat = models.in_form(hat, config.model.conv_form)
  if isinstance(hat, nn.Module):
    hat = networks.linen_hat(hat)
  if not fits:
    networks.check_hat(hat, (size, size, config.data.channels))
  return hat
