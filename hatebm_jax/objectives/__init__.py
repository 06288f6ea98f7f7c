"""Training objectives: each says WHAT is learned, in a file of its own.

A module of this package is an objective: `config.objective` names it. It has a
function `make(config, mesh) -> Objective`; where it takes a network of a user's
own, `make` has the parameter `hat` or `generator` too. The parts that
objectives are built from are in `parts/`.
"""

import importlib
import inspect
import pkgutil

import ml_collections
from jax.sharding import Mesh

from hatebm_jax import errors, networks
from hatebm_jax.objectives.parts import start
from hatebm_jax.objectives.parts.objective import Objective


def names() -> list[str]:
  """Returns the names of the objectives, which are modules of this package."""
  modules = pkgutil.iter_modules(__path__)
  return sorted(module.name for module in modules if not module.ispkg)


def make(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
) -> Objective:
  """Returns the objective that `config.objective` names.

  If `config.train.start_from` names a folder, new runs start from its weights.

  Args:
    config: Config of the run.
    mesh: Mesh of the run.
    generator: Generator of the user's own, to put a joint run's hat on; None:
      the generator of the config.
    hat: Hat of the user's own; None: the hat of the config.

  Raises:
    ConfigError: If there is no such objective, it does not take a network that
      is given, or it has no discriminator and `config.ddls` asks for one.
  """
  if config.objective not in names():
    raise errors.ConfigError(
      f"config.objective={config.objective!r}: expected one of "
      f"{', '.join(names())}."
    )
  module = importlib.import_module(f"{__name__}.{config.objective}")
  accepted = inspect.signature(module.make).parameters
  given = {"generator": generator, "hat": hat}
  given = {name: x for name, x in given.items() if x is not None}
  for name in given:
    if name not in accepted:
      raise errors.ConfigError(
        f"config.objective={config.objective!r} takes no {name} of your own. "
        f"Leave the argument {name} out, or set another objective ('joint' "
        "takes a hat and a generator, 'synthesis' a hat)."
      )
  objective = module.make(config, mesh, **given)
  if config.ddls.num_steps and objective.networks.discriminator is None:
    raise errors.ConfigError(
      f"config.ddls.num_steps={config.ddls.num_steps}: expected a run with a "
      f"discriminator, found the objective {config.objective!r}. Leave it out, "
      "or name the workdir or the release of an SN-GAN."
    )
  if config.train.start_from:
    return start.from_weights(config, objective)
  return objective
