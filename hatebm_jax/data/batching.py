"""Batches of a training run: their order, their rows per host, reading ahead.

A batch depends on the seed and on the step alone. A run that resumes at step s
therefore sees what an uninterrupted run sees, and no state of an iterator needs
to be saved. The batches of a streamed data set depend on the number of hosts
too, see `sources.open_source`. Host h of `hosts` reads its own rows of the
global batch: `[h * batch / hosts, (h + 1) * batch / hosts)`.
"""

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from hatebm_jax.data import decode
from hatebm_jax.data.base import DataError, Source

_BATCHES_AHEAD = 2
# These numbers keep the random streams of one seed apart.
_ORDER, _CROP = 1, 2


def check_batch(batch_size: int, num_devices: int) -> None:
  """Checks that a batch divides over the devices.

  Args:
    batch_size: Number of images of a global batch.
    num_devices: Number of devices, or hosts, that share the batch.

  Raises:
    DataError: The batch does not divide.
  """
  if batch_size < 1 or batch_size % num_devices:
    below = batch_size // num_devices * num_devices
    sizes = [size for size in (below, below + num_devices) if size > 0]
    raise DataError(
      f"config.train.batch_size: expected a multiple of {num_devices}, the "
      "number of devices or hosts that share a batch, found "
      f"{batch_size}. Set it to "
      + " or ".join(f"--config.train.batch_size={size}" for size in sizes)
    )


def batch_indices(
  num_images: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """Returns the indices of the images of a step.

  Every epoch is a permutation of all images. Epochs follow each other without
  a gap, so a batch may hold the end of one epoch and the start of the next.

  Args:
    num_images: Number of images of the source.
    batch_size: Number of images of the global batch.
    seed: Seed of the order, 0 or more.
    step: Training step, 0 or more.

  Returns:
    int64 `[batch_size]` in [0, num_images).
  """
  positions = np.arange(step * batch_size, (step + 1) * batch_size)
  epochs, places = np.divmod(positions, num_images)
  indices = np.empty(batch_size, np.int64)
  for epoch in np.unique(epochs):
    order = _permutation(num_images, seed, int(epoch))
    indices[epochs == epoch] = order[places[epochs == epoch]]
  return indices


@functools.lru_cache(maxsize=2)
def _permutation(num_images: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng([_ORDER, seed, epoch]).permutation(num_images)


def batches(
  source: Source,
  batch_size: int,
  seed: int,
  first_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[np.ndarray]:
  """Returns this host's rows of all batches; a thread reads them ahead.

  The thread ends when the iterator is closed or dropped.

  Args:
    source: Source of the images.
    batch_size: Number of images of the global batch.
    seed: Seed of the order and of the random crops, 0 or more.
    first_step: Training step of the first batch.
    process_index: Index of this host.
    process_count: Number of hosts.

  Returns:
    An endless iterator of uint8
    `[batch_size / process_count, image_size, image_size, channels]`.

  Raises:
    DataError: The batch does not divide over the hosts, or the source has too
      few images. While the iterator runs: an image cannot be read.
  """
  check_batch(batch_size, process_count)
  if source.num_images < batch_size:
    raise DataError(
      f"{source.name}: expected at least a batch of {batch_size} images, found "
      f"{source.num_images}. Add images, or set --config.train.batch_size to "
      f"{source.num_images} or less."
    )
  return _ahead(
    _batches(source, batch_size, seed, first_step, process_index, process_count)
  )


def _batches(
  source: Source,
  batch_size: int,
  seed: int,
  first_step: int,
  process_index: int,
  process_count: int,
) -> Iterator[np.ndarray]:
  """Yields this host's rows of the batches."""
  local = batch_size // process_count
  rows = slice(process_index * local, (process_index + 1) * local)
  stream = source.stream and source.stream(
    seed, first_step * local, process_index, process_count
  )
  for step in itertools.count(first_step):
    rng = np.random.default_rng([_CROP, seed, step])
    positions = rng.random((batch_size, 2))[rows]
    if stream:
      images = list(itertools.islice(stream, local))
      yield decode.cut(images, source.image_size, positions)
    else:
      indices = batch_indices(source.num_images, batch_size, seed, step)
      yield source.images(indices[rows], positions)


def _ahead(iterator: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  """Runs an endless iterator in a thread, a few items ahead."""
  pool = concurrent.futures.ThreadPoolExecutor(1, "hatebm_data")
  try:
    pending = collections.deque(
      pool.submit(next, iterator) for _ in range(_BATCHES_AHEAD)
    )
    while True:
      item = pending.popleft().result()
      pending.append(pool.submit(next, iterator))
      yield item
  finally:
    pool.shutdown(cancel_futures=True)
