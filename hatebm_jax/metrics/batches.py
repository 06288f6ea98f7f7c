"""Applies a network to batches of images on all devices."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import sharding


def stream(
  function: Callable[[jax.Array], Any],
  batches: Iterable[np.ndarray],
  batch_size: int,
  mesh: Mesh | None = None,
) -> Iterator[Any]:
  """Yields the outputs of a network for batches of images.

  Each batch is split over all devices of all processes.

  Args:
    function: Jitted function from a batch of images `[batch, ...]` to a pytree
      of arrays `[batch, ...]`. It always gets `batch_size` images, rounded up
      to a multiple of the devices; smaller batches are padded.
    batches: Arrays `[n, ...]`, n <= `batch_size`. They are the same on every
      process.
    batch_size: Number of images in a batch.
    mesh: Mesh of the devices; None stands for all devices.

  Returns:
    An iterator of pytrees of NumPy arrays `[n, ...]`.
  """
  mesh = mesh or sharding.make_mesh()
  placement = NamedSharding(mesh, P(sharding.AXIS))
  padded_size = -(-batch_size // mesh.size) * mesh.size
  for batch in batches:
    padded = np.resize(batch, (padded_size, *batch.shape[1:]))
    placed = jax.make_array_from_callback(
      padded.shape, placement, padded.__getitem__
    )
    leaves, tree = jax.tree.flatten(sharding.fetch(function(placed)))
    yield jax.tree.unflatten(tree, [leaf[: len(batch)] for leaf in leaves])


def split(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
  """Yields batches of `batch_size` images; the last one may be smaller."""
  for start in range(0, len(images), batch_size):
    yield images[start : start + batch_size]


def apply(
  function: Callable[[jax.Array], Any],
  images: np.ndarray,
  batch_size: int,
  mesh: Mesh | None = None,
) -> Any:
  """Returns the outputs of a network for all images, `[n, ...]`.

  Args:
    function: Jitted function of a batch of images; see `stream`.
    images: All images `[n, ...]`.
    batch_size: Largest number of images in a batch.
    mesh: Mesh of the devices; None stands for all devices.
  """
  batch_size = min(batch_size, len(images))
  parts = split(images, batch_size)
  results = stream(function, parts, batch_size, mesh)
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)
