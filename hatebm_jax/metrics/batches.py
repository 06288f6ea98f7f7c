"""Images through a network, so many at a time, over all devices."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import sharding


def stream(
  function: Callable[[jax.Array], Any],
  batches: Iterable[np.ndarray],
  batch_size: int,
) -> Iterator[Any]:
  """Yields what a network makes of batches of images.

  Each batch is split over all devices of all processes.

  Args:
    function: jitted, of a batch of images `[batch, ...]`, to a pytree of arrays
      `[batch, ...]`. It always sees `batch_size` images, rounded up to a
      multiple of the devices: a smaller batch is filled up.
    batches: arrays `[n, ...]`, n <= `batch_size`, the same on every process.
    batch_size: images at a time.

  Returns:
    An iterator of pytrees of NumPy arrays `[n, ...]`.
  """
  mesh = sharding.make_mesh()
  split = NamedSharding(mesh, P(sharding.AXIS))
  padded_size = -(-batch_size // mesh.size) * mesh.size
  for batch in batches:
    padded = np.resize(batch, (padded_size, *batch.shape[1:]))
    placed = jax.make_array_from_callback(
      padded.shape, split, padded.__getitem__
    )
    leaves, tree = jax.tree.flatten(sharding.fetch(function(placed)))
    yield jax.tree.unflatten(tree, [leaf[: len(batch)] for leaf in leaves])


def apply(
  function: Callable[[jax.Array], Any], images: np.ndarray, batch_size: int
) -> Any:
  """Returns a pytree of NumPy arrays `[n, ...]` of images `[n, ...]`.

  Args:
    function: as in `stream`.
    images: all of them.
    batch_size: images at a time, at most.
  """
  batch_size = min(batch_size, len(images))
  starts = range(0, len(images), batch_size)
  parts = [images[i : i + batch_size] for i in starts]
  results = stream(function, parts, batch_size)
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)
