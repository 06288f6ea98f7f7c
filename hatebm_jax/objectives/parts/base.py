"""What every objective offers the training loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

Metrics = dict[str, jax.Array]
Images = dict[str, jax.Array]


class Generator(NamedTuple):
  """Any generator, to put a hat on: pure functions, of any library.

  Attributes:
    apply: `(variables, z) -> images` `[batch, height, width, channels]`, of
      latents `[batch, *latent_shape]`; differentiable in z. It may as well
      close over its parameters and ignore `variables`.
    latent_shape: of one z.
    variables: pytree of arrays. They are frozen and saved with the run.
  """

  apply: Callable[[Any, jax.Array], jax.Array]
  latent_shape: tuple[int, ...]
  variables: Any = ()


class Networks(NamedTuple):
  """A hat and a generator, and the parameters to bind to them.

  Attributes:
    hat: Linen module, images -> energies `[batch]`. None: the run has no hat,
      its samples are G(z).
    generator: Linen module, or a `Generator`: latents -> images.
    variables: `(state, weights) -> (hat_variables, generator_variables)`, with
      weights `raw` or `averaged`.
    latent_shape: of one z.
    image_shape: of one image.
    encoder: Linen module, images -> latents, where the run has one.
    encoder_variables: `(state, weights) -> variables` of the encoder.
  """

  hat: nn.Module | None
  generator: nn.Module | Generator
  variables: Callable[[Any, str], tuple[Any, Any]]
  latent_shape: tuple[int, ...]
  image_shape: tuple[int, ...]
  encoder: nn.Module | None = None
  encoder_variables: Callable[[Any, str], Any] | None = None


def nothing_frozen() -> tuple[()]:
  """The `load_frozen` of a run that starts from its seed alone."""
  return ()


class Objective(NamedTuple):
  """Pure functions over a state; the caller compiles them.

  Attributes:
    init: `(rng, *frozen) -> state`.
    step: `(state, images, rng) -> (state, metrics, images)`: takes one training
      step. `images` are uint8 `[n, height, width, channels]`, n =
      `batches_per_step` batches; returned are scalar metrics and batches of
      images in [-1, 1] to look at.
    partition_specs: `abstract state -> specs`: how the state lies on the mesh.
    networks: for sampling from the state.
    frozen: shapes and dtypes of what `load_frozen` returns.
    load_frozen: `() -> frozen`: reads what a new run takes over from another
      one, as a tuple of pytrees. A run with a checkpoint does not need it: its
      state holds it.
    batches_per_step: batches of data that a training step takes.
    test_loss: `(state, images, rng) -> [batch]`, losses of uint8 images of the
      test split; None: the objective has none.
  """

  init: Callable[..., Any]
  step: Callable[[Any, jax.Array, jax.Array], tuple[Any, Metrics, Images]]
  partition_specs: Callable[[Any], Any]
  networks: Networks
  frozen: tuple[Any, ...] = ()
  load_frozen: Callable[[], tuple[Any, ...]] = nothing_frozen
  batches_per_step: int = 1
  test_loss: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None
