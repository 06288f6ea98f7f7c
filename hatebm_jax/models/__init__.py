"""Networks of the paper as Flax Linen modules.

A module that can be the hat of a run has a function `make(image_size, width,
dtype)`, and `config.hat.kind` is its name. It returns a Linen module that maps
images to energies, or a `hatebm_jax.Hat`.

A module that can be the generator of a run (`generator`, `decoder`) has this
face, and `config.generator.kind` is its name:

- `make(image_size, width, channels=3, out_factor=1.0, norm_epsilon=1e-3,
  dtype=jnp.float32)` returns a Linen module whose `apply` maps latents to
  images;
- `latent_shape(image_size, latent_size)` returns the shape of one latent.
"""

import importlib
import pkgutil
import types
from typing import Any

from hatebm_jax import errors
from hatebm_jax.models import (
  decoder,
  discriminator,
  efficientnet,
  encoder,
  generator,
  hat,
  inception,
)

__all__ = [
  "decoder",
  "discriminator",
  "efficientnet",
  "encoder",
  "generator",
  "hat",
  "inception",
]


def choose(field: str, name: str, *functions: str) -> types.ModuleType:
  """Returns the module of this package that a config field names.

  Args:
    field: Name of the field, for the message.
    name: Name of the module. It may come from a stranger's config: nothing
      outside this package is imported.
    functions: Names of functions that the module must have.

  Raises:
    ConfigError: If there is no such module, or it lacks a function.
  """
  if name in {module.name for module in pkgutil.iter_modules(__path__)}:
    module = importlib.import_module(f"{__name__}.{name}")
    if all(hasattr(module, function) for function in functions):
      return module
  raise errors.ConfigError(
    f"{field}={name!r}: expected the name of a module in hatebm_jax/models "
    f"that has {' and '.join(functions)}."
  )


def in_form(network: Any, conv_form: str) -> Any:
  """Returns a network whose convolutions have a form.

  Args:
    network: Result of a module's `make`. It is returned as it is if it has no
      choice of forms.
    conv_form: Value of `config.model.conv_form`.
  """
  if not hasattr(network, "conv_form"):
    return network
  return network.clone(conv_form=conv_form)
