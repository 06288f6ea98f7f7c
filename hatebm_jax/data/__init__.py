"""Image sources, and the batches of a training run.

A batch is a pure function of the seed and the step: a run resumed at step s
sees exactly what an uninterrupted run sees, with no iterator state to save.
Every host reads its own rows of the global batch,
`[h * batch / hosts, (h + 1) * batch / hosts)`.

Images are uint8 on the host; `to_float` brings a batch to [-1, 1] on the
device, at a quarter of the transfer. Images that have the configured size are
left as they are. Of others, crop='center' resizes the centre square;
crop='random' resizes the short side and cuts a square at random along the long
one, another at every visit. Resizing is bilinear with antialias. There are no
flips.
"""

import collections
import concurrent.futures
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np
import tqdm
from absl import logging

from hatebm_jax import settings
from hatebm_jax.data import sources as data_sources
from hatebm_jax.data import tfds as data_tfds
from hatebm_jax.data.sources import DataError, Source, resize

__all__ = [
  "DataError",
  "Source",
  "batch_indices",
  "batches",
  "check_batch",
  "choose_images",
  "digits_labels",
  "in_order",
  "load_all",
  "load_images",
  "native_size",
  "open_source",
  "open_split",
  "resize",
]

_BATCHES_AHEAD = 2
_LOOKED_AT = 100  # images, to see how large they are
# Keep the random streams of one seed apart.
_ORDER, _CROP = 1, 2
# Width over height of a photograph, to estimate what uncut images take.
_ASPECT = 1.5


def open_source(
  config: ml_collections.ConfigDict, split: str = "train"
) -> Source:
  """Opens a source of images.

  - `digits`: scikit-learn's 1,797 handwritten digits, 8x8, enlarged
    bilinearly; 1,437 to train and 360 to test.
  - `folder:PATH`: every image file below PATH, ordered by name. Where PATH has
    a folder `train`, the splits are that and `test` (or `validation`, `val`);
    otherwise all images are the split `train`. An image that cannot be used
    is named on stderr and counted, and the next usable one stands in for it,
    so that `num_images` stays the number of files. Which images are used, and
    how, is in the README.
  - `tfds:NAME`: a prepared TensorFlow data set with a feature `image`. Its
    split `test` is that or, without one, `validation`.

  Images are decoded once and kept in the memory of each host where they fit
  `cache_gib`. Otherwise a folder is read as batches need it, and a TensorFlow
  data set is streamed: each host shuffles a part of its own through a buffer,
  so that its batches depend on the number of hosts too, and a resumed run first
  reads past the part of the epoch that it has seen.

  Args:
    config: `config.data`, with the fields source, image_size (pixels), channels
      (1 or 3), crop ('center' or 'random'), data_dir (where TensorFlow data
      sets are, '' for their default) and cache_gib (GiB).
    split: 'train' or 'test'.

  Returns:
    The source.

  Raises:
    DataError: a field is wrong, or the data are missing or cannot be read: an
      image of a TensorFlow data set; of a folder more than 10 images and 10 %.
  """
  _check_config(config, split)
  return _cache(_open(config, split), config)


def native_size(config: ml_collections.ConfigDict, split: str = "train") -> int:
  """Returns the size that a source's images have before they are resized.

  Args:
    config: `config.data`; its `image_size` and `crop` do not matter.
    split: 'train' or 'test'.

  Returns:
    Pixels: the median short side of the first 100 images.

  Raises:
    DataError: as `open_source`.
  """
  _check_config(config, split)
  config = config.copy_and_resolve_references()
  config.image_size, config.crop = data_sources.NATIVE, "center"
  source = _open(config, split)
  images = source.read(range(min(source.num_images, _LOOKED_AT)))
  return int(np.median([len(image) for image in images]))


def _open(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens a source that decodes images as they are read."""
  kind, _, rest = config.source.partition(":")
  if config.source == "digits":
    return data_sources.open_digits(config, split)
  if kind == "folder" and rest:
    return data_sources.open_folder(rest, config, split)
  if kind == "tfds" and rest:
    return data_tfds.open_tfds(rest, config, split)
  raise DataError(
    "config.data.source: expected digits, folder:PATH or tfds:NAME, found "
    f"{config.source!r}. For example --config.data.source=folder:PATH"
  )


def _check_config(config: ml_collections.ConfigDict, split: str) -> None:
  """Refuses values that no source can serve."""
  settings.check_group(config, "data")
  if split not in data_sources.SPLITS:
    raise DataError(f"split: expected train or test, found {split!r}")


def _cache(source: Source, config: ml_collections.ConfigDict) -> Source:
  """Decodes a source into memory where it fits `cache_gib`."""
  shape = (config.image_size, config.image_size, config.channels)
  square = config.crop == "center"
  gib = source.num_images * np.prod(shape) / 2**30 * (1 if square else _ASPECT)
  logging.info(
    "%s: %d images, %.2f GiB decoded, config.data.cache_gib=%g: %s",
    source.name,
    source.num_images,
    gib,
    config.cache_gib,
    "kept in memory" if gib <= config.cache_gib else "read as needed",
  )
  if gib > config.cache_gib:
    return source
  if square:
    images = np.empty((source.num_images, *shape), np.uint8)
  else:  # Their long sides differ.
    images = [None] * source.num_images
  decoded = tqdm.tqdm(
    source.read(range(source.num_images)),
    f"decoding {source.name}",
    source.num_images,
    unit="image",
    delay=2,  # seconds: small sets need no bar
  )
  for i, image in enumerate(decoded):
    images[i] = image
  if skipped := source.skipped():
    print(skipped, file=sys.stderr)

  def read(indices):
    return (images[i] for i in indices)

  return source._replace(read=read, stream=None)


def digits_labels(split: str) -> np.ndarray:
  """Labels of the source `digits`, in its order.

  Args:
    split: 'train' or 'test'.

  Returns:
    int64 `[1437]` or `[360]`, 0 to 9.
  """
  return data_sources.digits(split)[1]


def load_all(source: Source) -> np.ndarray:
  """Reads a whole source into memory, for statistics.

  Args:
    source: where the images come from.

  Returns:
    uint8 `[num_images, image_size, image_size, channels]`, in the source's
    order.

  Raises:
    DataError: an image cannot be read.
  """
  return source.images(range(source.num_images))


def in_order(
  source: Source, indices: Sequence[int], batch_size: int
) -> Iterator[np.ndarray]:
  """Reads images in one pass, a batch of them in memory at a time.

  Args:
    source: where the images come from.
    indices: `[n]` in [0, num_images), increasing.
    batch_size: images of all batches but the last, which may be smaller.

  Returns:
    An iterator of centre squares, uint8
    `[batch, image_size, image_size, channels]`.

  Raises:
    DataError: an image cannot be read.
  """
  images = source.read(indices)
  while batch := list(itertools.islice(images, batch_size)):
    centre = np.full((len(batch), 2), 0.5)
    yield data_sources.cut(batch, source.image_size, centre)


def open_split(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens a split as evaluation sees it: centre squares, nothing cached.

  Args:
    config: `config.data`; its `crop` and `cache_gib` have no effect.
    split: 'train' or 'test'.

  Returns:
    The source. It decodes only the images that are asked for.

  Raises:
    DataError: The split cannot be opened, see `open_source`.
  """
  config = config.copy_and_resolve_references()
  config.crop, config.cache_gib = "center", 0.0
  return open_source(config, split)


def choose_images(source: Source, limit: int) -> np.ndarray:
  """Reads all images of a source, or a random choice of a larger source.

  The choice does not depend on the seed of a run.

  Args:
    source: Source of the images.
    limit: Largest number of images.

  Returns:
    uint8 `[n, image_size, image_size, channels]`, n <= limit, in the order of
    the source.
  """
  order = np.random.default_rng(0).permutation(source.num_images)
  return source.images(np.sort(order[:limit]))


def load_images(
  config: ml_collections.ConfigDict, split: str, limit: int
) -> np.ndarray:
  """Reads the images of a split, or a random choice of a larger split.

  Args:
    config: `config.data`; its `crop` and `cache_gib` have no effect.
    split: 'train' or 'test'.
    limit: Largest number of images.

  Returns:
    uint8 `[n, image_size, image_size, channels]`, n <= limit.

  Raises:
    DataError: The split cannot be opened, or an image cannot be read.
  """
  return choose_images(open_split(config, split), limit)


def check_batch(batch_size: int, num_devices: int) -> None:
  """Checks that a batch divides over the devices.

  Args:
    batch_size: images of a global batch.
    num_devices: devices, or hosts, that share it.

  Raises:
    DataError: it does not divide.
  """
  if batch_size < 1 or batch_size % num_devices:
    below = batch_size // num_devices * num_devices
    sizes = [size for size in (below, below + num_devices) if size > 0]
    raise DataError(
      f"config.train.batch_size: expected a multiple of {num_devices}, to "
      f"divide over as many devices, found {batch_size}. Set it to "
      + " or ".join(f"--config.train.batch_size={size}" for size in sizes)
    )


def batch_indices(
  num_images: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """The images of a step.

  Every epoch is a permutation of all images. Epochs follow each other without
  a gap, so a batch may hold the end of one and the start of the next.

  Args:
    num_images: images in the source.
    batch_size: images in the global batch.
    seed: 0 or more.
    step: 0 or more.

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
  """Yields this host's rows of the batches, read ahead in a thread.

  Close the iterator (or drop it) to end its thread.

  Args:
    source: where the images come from.
    batch_size: images in the global batch.
    seed: orders the images and places random crops; 0 or more.
    first_step: the step of the first batch.
    process_index: this host.
    process_count: number of hosts.

  Returns:
    An endless iterator of uint8
    `[batch_size / process_count, image_size, image_size, channels]`.

  Raises:
    DataError: the batch does not divide over the hosts, or the source has fewer
      images; while iterating, an image cannot be read.
  """
  check_batch(batch_size, process_count)
  if source.num_images < batch_size:
    raise DataError(
      f"{source.name}: expected at least a batch of {batch_size} images, found "
      f"{source.num_images}. Add images, or set --config.train.batch_size to "
      f"{source.num_images} or less"
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
    where = np.random.default_rng([_CROP, seed, step]).random((batch_size, 2))
    if stream:
      images = list(itertools.islice(stream, local))
      yield data_sources.cut(images, source.image_size, where[rows])
    else:
      indices = batch_indices(source.num_images, batch_size, seed, step)
      yield source.images(indices[rows], where[rows])


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
