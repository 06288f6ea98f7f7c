"""Reads the images of a split: all of them, some of them, or one pass."""

import itertools
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from hatebm_jax.data import decode, sources
from hatebm_jax.data.base import Source


def open_split(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens a split as evaluation sees it: centre squares, nothing cached.

  Args:
    config: `config.data`; its `crop` and `cache_gib` have no effect.
    split: 'train' or 'test'.

  Returns:
    The source. It decodes only the images that are asked for.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The data are missing or cannot be read.
  """
  config = config.copy_and_resolve_references()
  config.crop, config.cache_gib = "center", 0.0
  return sources.open_source(config, split)


def load_all(source: Source) -> np.ndarray:
  """Reads all images of a source into memory.

  Args:
    source: Source of the images.

  Returns:
    uint8 `[num_images, image_size, image_size, channels]`, in the order of the
    source.

  Raises:
    DataError: An image cannot be read.
  """
  return source.images(range(source.num_images))


def choose_images(source: Source, limit: int, skip: int = 0) -> np.ndarray:
  """Reads all images of a source, or a random choice of a larger source.

  The choice does not depend on the seed of a run.

  Args:
    source: Source of the images.
    limit: Largest number of images.
    skip: Number of images that are left out. They are those that a call with
      this number as its limit chooses.

  Returns:
    uint8 `[n, image_size, image_size, channels]`, n <= limit, in the order of
    the source.

  Raises:
    DataError: An image cannot be read.
  """
  order = np.random.default_rng(0).permutation(source.num_images)
  return source.images(np.sort(order[skip : skip + limit]))


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
    ConfigError: A field has a value that cannot be used.
    DataError: The data are missing, or an image cannot be read.
  """
  return choose_images(open_split(config, split), limit)


def in_order(
  source: Source, indices: Sequence[int], batch_size: int
) -> Iterator[np.ndarray]:
  """Reads images in one pass and holds one batch of them in memory.

  Args:
    source: Source of the images.
    indices: `[n]` in [0, num_images), increasing.
    batch_size: Number of images of a batch. The last batch may be smaller.

  Yields:
    Centre squares, uint8 `[batch, image_size, image_size, channels]`.

  Raises:
    DataError: An image cannot be read.
  """
  images = source.read(indices)
  while batch := list(itertools.islice(images, batch_size)):
    yield decode.cut(batch, source.image_size)
