"""Training objectives: a file each, pure functions over a state."""

import ml_collections
from jax.sharding import Mesh

from hatebm_jax import errors
from hatebm_jax.objectives import base, synthesis


def make(config: ml_collections.ConfigDict, mesh: Mesh) -> base.Objective:
  """Returns the objective that `config.objective` names.

  Raises:
    ConfigError: if there is none of that name.
  """
  match config.objective:
    case "synthesis":
      return synthesis.make(config, mesh)
    case other:
      raise errors.ConfigError(
        f"config.objective={other!r}: the objectives are 'synthesis'."
      )
