"""What every objective offers the training loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

Metrics = dict[str, jax.Array]
Images = dict[str, jax.Array]


class Networks(NamedTuple):
  """A hat and a generator, and the parameters to bind to them.

  Attributes:
    hat: Linen module, images -> energies `[batch]`.
    generator: Linen module, latents -> images.
    variables: `(state, weights) -> (hat_variables, generator_variables)`, with
      weights `raw` or `averaged`.
    latent_shape: of one z.
    image_shape: of one image.
  """

  hat: nn.Module
  generator: nn.Module
  variables: Callable[[Any, str], tuple[Any, Any]]
  latent_shape: tuple[int, ...]
  image_shape: tuple[int, ...]


class Objective(NamedTuple):
  """Pure functions over a state; the caller compiles them.

  Attributes:
    init: `rng -> state`.
    step: `(state, images, rng) -> (state, metrics, images)`: takes one training
      step. `images` are uint8 `[batch, height, width, channels]`; returned are
      scalar metrics and batches of images in [-1, 1] to look at.
    partition_specs: `abstract state -> specs`: how the state lies on the mesh.
    networks: for sampling from the state.
  """

  init: Callable[[jax.Array], Any]
  step: Callable[[Any, jax.Array, jax.Array], tuple[Any, Metrics, Images]]
  partition_specs: Callable[[Any], Any]
  networks: Networks
