"""Training objectives: a file each, pure functions over a state."""

import ml_collections
from jax.sharding import Mesh

from hatebm_jax import errors
from hatebm_jax.objectives import autoencoder, joint, sngan, synthesis
from hatebm_jax.objectives.parts import base


def make(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  generator: base.Generator | None = None,
) -> base.Objective:
  """Returns the objective that `config.objective` names.

  Args:
    config: of the run.
    mesh: of the run.
    generator: to put a joint run's hat on; None: that of the config.

  Raises:
    ConfigError: if there is none of that name, or it takes no generator.
  """
  if config.objective == "joint":
    return joint.make(config, mesh, generator)
  if generator is not None:
    raise errors.ConfigError(
      f"config.objective={config.objective!r}: only 'joint' puts a hat on a "
      "generator that is given; set it, or give none."
    )
  match config.objective:
    case "synthesis":
      return synthesis.make(config, mesh)
    case "autoencoder":
      return autoencoder.make(config, mesh)
    case "sngan":
      return sngan.make(config, mesh)
    case other:
      raise errors.ConfigError(
        f"config.objective={other!r}: the objectives are 'synthesis', 'joint', "
        "'autoencoder' and 'sngan'."
      )
