"""What every objective offers to the training loop."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from hatebm_jax import networks

Metrics = dict[str, jax.Array]
ShownImages = dict[str, jax.Array]


def nothing_frozen() -> tuple[()]:
  """Loads nothing: the run starts from its seed alone."""
  return ()


def resume_as_stored(
  read: Callable[[Any], Any],
  abstract: Any,
  shapes: Mapping[str, tuple[int, ...]],
) -> Any:
  """Reads a state that does not depend on the number of devices."""
  del shapes
  return read(abstract)


def restart_as_is(rng: jax.Array, state: Any) -> Any:
  """Returns a state in which nothing depends on the weights."""
  del rng
  return state


class Objective(NamedTuple):
  """Pure functions over a state; the caller compiles them.

  Attributes:
    init: Function `(rng, *frozen) -> state`.
    step: Function `(state, images, rng) -> (state, metrics, shown)` that takes
      one training step. `images` are uint8 `[n, height, width, channels]`, n =
      `batches_per_step` batches. `metrics` are scalars; `shown` are batches of
      images in [-1, 1] to look at.
    partition_specs: Function `abstract state -> partition specs`, which says
      how the state lies on the mesh.
    networks: Networks of the run, for sampling from its state.
    frozen: Shapes and dtypes of what `load_frozen` returns.
    load_frozen: Function `() -> frozen` that reads what a new run takes over
      from another one, a tuple of pytrees. A run with a checkpoint does not
      need it: its state holds it.
    resume: Function `(read, abstract, shapes) -> state` that reads a
      checkpoint. `read` restores an abstract state. `abstract` is the state as
      `init` makes it on these devices. `shapes` has the shape of each stored
      array by name. An objective needs its own function if the shapes in its
      state depend on the number of devices.
    restart: Function `(rng, state) -> state`, called if a new run starts from
      trained weights. It makes anew what `init` has made of the weights.
    batches_per_step: Number of batches of data that a training step takes.
    test_loss: Function `(state, images, rng) -> losses [batch]` of uint8 images
      of the test split; None: the objective has none.
  """

  init: Callable[..., Any]
  step: Callable[[Any, jax.Array, jax.Array], tuple[Any, Metrics, ShownImages]]
  partition_specs: Callable[[Any], Any]
  networks: networks.Networks
  frozen: tuple[Any, ...] = ()
  load_frozen: Callable[[], tuple[Any, ...]] = nothing_frozen
  resume: Callable[..., Any] = resume_as_stored
  restart: Callable[[jax.Array, Any], Any] = restart_as_is
  batches_per_step: int = 1
  test_loss: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None
