"""Film strips: pictures of the states that chains pass on their way."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import chains, images, networks, pixels, sharding

_FRAMES = 11


class Paths(NamedTuple):
  """Paths of a few chains, `[frames, chains, height, width, channels]`.

  Attributes:
    generated: Images G(z), float32.
    residuals: Residuals y, float32.
  """

  generated: np.ndarray
  residuals: np.ndarray


def draw(
  model: networks.Networks,
  plan: chains.Plan,
  variables: tuple[Any, Any],
  rngs: jax.Array,
  mesh: Mesh,
  method: str = "shard_map",
) -> Paths:
  """Runs chains and keeps 11 of their states, the start and the end included.

  Args:
    model: Networks of a run that has a hat.
    plan: Plan of the chains. Shorter chains than 10 steps keep all states.
    variables: Parameters of hat and generator.
    rngs: Keys of the chains, `[batch]`; a multiple of the number of devices.
    mesh: Mesh of the devices.
    method: `config.sharding.chains`, either `shard_map` or `pmap`.
  """
  num_frames = min(_FRAMES, plan.settings.num_steps + 1)
  film = functools.partial(chains.film, model, plan, num_frames=num_frames)
  film = jax.jit(chains.over_devices(film, mesh, method))
  paths = sharding.fetch(film(variables, rngs))
  return Paths(*(path.swapaxes(0, 1) for path in paths))


def tile(frames: np.ndarray) -> np.ndarray:
  """Tiles images along paths: each row is a chain, each column a state.

  Args:
    frames: Images along the paths, uint8
      `[num_frames, chains, height, width, channels]`.

  Returns:
    The film strip, uint8 `[height, width, channels]`.
  """
  num_frames = frames.shape[0]
  rows = frames.swapaxes(0, 1).reshape(-1, *frames.shape[2:])
  return images.grid(rows, columns=num_frames)


def picture(paths: Paths) -> np.ndarray:
  """Returns the film strip of paths, uint8 `[height, width, channels]`."""
  return tile(pixels.to_uint8(paths.generated + paths.residuals))


def split_picture(paths: Paths) -> np.ndarray:
  """Shows what the ends of paths are made of: G(z), y and their sum.

  Returns:
    A uint8 picture with one row per chain. The residual y is gray where it is
    zero, and scaled so that its largest absolute value is black or white.
  """
  generated, residual = paths.generated[-1], paths.residuals[-1]
  scaled = residual / max(np.abs(residual).max(), 1e-12)
  columns = np.stack([generated, scaled, generated + residual])
  return tile(pixels.to_uint8(columns))
