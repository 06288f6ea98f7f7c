"""Pairs of sets of images for out-of-distribution detection, treated alike.

A set is the data of another source, or it is made of the in-distribution images
themselves.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np
from PIL import Image

from hatebm_jax import data
from hatebm_jax import images as images_lib

# Numbers of held-out images. The mean energy of fewer of them is uncertain by
# more than a tenth of the standard deviation.
_MIN_HELD_OUT, _MAX_HELD_OUT = 100, 1_000


class Pair(NamedTuple):
  """Two sets of images that were treated alike.

  Attributes:
    images_in: In-distribution images, uint8 `[n, height, width, channels]`.
    images_out: OOD images, uint8 `[m, height, width, channels]`.
    held_out: Other test images, which are not scored, uint8
      `[k, height, width, channels]`, k <= 1,000. None if fewer than 100 are
      left.
    names: Names of the two sets.
    resized_to: Size that both were brought to first, in pixels. It is the
      lowest of the two resolutions and the size of the hat's images.
  """

  images_in: np.ndarray
  images_out: np.ndarray
  held_out: np.ndarray | None
  names: tuple[str, str]
  resized_to: int


def load(config: ml_collections.ConfigDict, source: str) -> Pair:
  """Reads in-distribution test images and OOD images, treated alike.

  Args:
    config: Config of the run.
    source: Source of the OOD images, written as `config.data.source` is, or one
      of `MADE`. The test split of a source is used, or all of its images if it
      has no test split.

  Raises:
    ConfigError: If a field of `config.data` cannot be used.
    DataError: If a set cannot be read.
  """
  make = MADE.get(source)
  of_both = [(config.data, "test")]
  if make is None:
    of_both.append(open_outside(config, source))
  size = min(config.data.image_size, *(data.native_size(*x) for x in of_both))
  test, *others = (_open(settings, split, size) for settings, split in of_both)
  limit = config.ood.num_images
  images_in = data.choose_images(test, limit)
  if make is None:
    (outside,) = others
    images_out, name = data.choose_images(outside, limit), outside.name
  else:
    images_out, name = make(images_in), f"{test.name}, {source}"
  held_out = None
  if test.num_images - len(images_in) >= _MIN_HELD_OUT:
    held_out = data.choose_images(test, _MAX_HELD_OUT, skip=len(images_in))
  images = (
    None if x is None else _finish(x, config)
    for x in (images_in, images_out, held_out)
  )
  return Pair(*images, (test.name, name), size)


def open_outside(
  config: ml_collections.ConfigDict, source: str
) -> tuple[ml_collections.ConfigDict, str]:
  """Returns `config.data` for a set of OOD images, and the split to use.

  Args:
    config: Config of the run.
    source: Source of the OOD images, written as `config.data.source` is.

  Returns:
    The group, and `test`, or `train` if the source has no test images.
  """
  outside = config.data.copy_and_resolve_references()
  outside.source = source
  # The names of the run's own splits and feature are not those of another set.
  outside.update(train_split="", test_split="", feature="")
  try:
    data.open_native(outside, "test")
  except data.DataError:
    return outside, "train"
  return outside, "test"


def _open(
  settings: ml_collections.ConfigDict, split: str, size: int
) -> data.Source:
  """Opens a split whose images have `size` pixels."""
  settings = settings.copy_and_resolve_references()
  settings.image_size = size
  return data.open_split(settings, split)


def _finish(
  images: np.ndarray, config: ml_collections.ConfigDict
) -> np.ndarray:
  """Brings images to the size of the hat's and encodes them if asked to."""
  images = data.resize(images, config.data.image_size)
  quality = config.ood.jpeg_quality
  return reencode(images, quality) if quality else images


def reencode(images: np.ndarray, quality: int) -> np.ndarray:
  """Encodes images as JPEGs and decodes them again.

  Args:
    images: Images, uint8 `[n, height, width, channels]`.
    quality: Quality of the JPEGs, from 1 to 100.

  Returns:
    uint8 `[n, height, width, channels]`.
  """
  decoded = []
  for image in images:
    file = io.BytesIO()
    images_lib.to_pillow(image).save(file, "JPEG", quality=quality)
    decoded.append(np.asarray(Image.open(file)).reshape(image.shape))
  return np.stack(decoded)


def _flipped(images: np.ndarray) -> np.ndarray:
  return images[:, ::-1]


def _permuted_blocks(images: np.ndarray) -> np.ndarray:
  return _permuted(images, max(1, images.shape[1] // 4))


def _permuted_pixels(images: np.ndarray) -> np.ndarray:
  return _permuted(images, 1)


def _permuted(images: np.ndarray, side: int) -> np.ndarray:
  """Puts the blocks of each image in a random order of its own.

  The order does not depend on the seed of a run. What is left at the right and
  at the bottom stays where it is.

  Args:
    images: Images, uint8 `[n, height, width, channels]`.
    side: Height and width of a block in pixels.
  """
  rng = np.random.default_rng(0)
  rows, columns = (n // side for n in images.shape[1:3])
  result = images.copy()
  for image, new in zip(images, result, strict=True):
    whole = image[: rows * side, : columns * side]
    blocks = whole.reshape(rows, side, columns, side, -1).swapaxes(1, 2)
    mixed = rng.permutation(blocks.reshape(-1, *blocks.shape[2:]))
    mixed = mixed.reshape(blocks.shape).swapaxes(1, 2).reshape(whole.shape)
    new[: rows * side, : columns * side] = mixed
  return result


# OOD images that are made of the in-distribution images, by the name that
# `config.ood.sets` has for them.
MADE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "flipped": _flipped,
  "permuted_blocks": _permuted_blocks,
  "permuted_pixels": _permuted_pixels,
}
