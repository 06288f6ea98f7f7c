"""Opens sources of images: the one place that knows all kinds of sources.

A new kind of source takes two files. The first is a module in this folder with
a function that returns a `base.Source`; `digits.py` is the shortest one. The
second is this file, in which `_open` gets one more case. CONTRIBUTING.md has an
example.
"""

import sys

import ml_collections
import numpy as np
import tqdm
from absl import logging

from hatebm_jax import config as config_lib
from hatebm_jax.data import (
  base,
  decode,
  digits,
  folder,
  jpeg,
  prepared,
  tfds,
)
from hatebm_jax.data.base import DataError, Source

_LOOKED_AT = 100  # images whose size `native_size` looks at
# Width over height of a typical photograph. It serves to estimate how much
# memory images take that are not cut to squares.
_ASPECT = 1.5


def open_source(
  config: ml_collections.ConfigDict, split: str = "train"
) -> Source:
  """Opens a source of images.

  `config.source` is one of these:

  - `digits`: scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged
    bilinearly. 1,437 are the split train and 360 the split test.
  - `folder:PATH`: every image file below PATH, ordered by name. If PATH has a
    folder `train`, this folder is the split train, and the folder `test` (or
    `validation`, or `val`) is the split test. Otherwise all images are the
    split train. A folder `train` among other folders of images, without a
    folder of test images, is a class. The aligned images of CelebA have its
    official splits (`celeba.py`). An image that cannot be used is named on
    stderr and counted, and the next usable image takes its place, so that
    `num_images` stays the number of files. Workdirs of runs are skipped.
  - `tfds:NAME`: a prepared TensorFlow data set with a feature `image`. The
    split test is its split `test` or, if it has none, `validation`.
  - `prepared:PATH`: the images that `prepare.py` made of one of these sources,
    in a folder or a bucket.

  Images are decoded once and kept in the memory of each host if they fit into
  `cache_gib`. If they do not fit, the images of a folder or of array_record
  files are read when a batch needs them. A TensorFlow data set in another
  format is streamed: each host shuffles its own part through a buffer. The
  batches then depend on the number of hosts too, and a resumed run first reads
  past the images of the epoch that it has seen.

  Args:
    config: `config.data`, with the fields source, train_split, test_split and
      feature (names, '' for the usual ones), image_size (pixels), channels (1
      or 3), crop ('center' or 'random'), jpeg_dct ('accurate' or 'fast'),
      data_dir (folder of the prepared TensorFlow data sets, '' for TensorFlow's
      default), cache_dir (local folder for copies of prepared images in a
      bucket, '' for the default one) and cache_gib (GiB).
    split: 'train' or 'test'.

  Returns:
    The source.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The data are missing or cannot be read. A TensorFlow data set may
      have no image that cannot be read. A folder may have 10 such images, or
      10 % of its images if that is more.
  """
  _check(config, split)
  return _cache(_open(config, split), config)


def open_native(
  config: ml_collections.ConfigDict, split: str = "train"
) -> Source:
  """Opens a source whose images keep the size and the shape that they have.

  No image is decoded before it is read.

  Args:
    config: `config.data`; its `image_size`, `crop` and `cache_gib` have no
      effect.
    split: 'train' or 'test'.

  Returns:
    The source. Its `read` yields images of different sizes, whole; `images`
    cannot be used.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The data are missing or cannot be read.
  """
  _check(config, split)
  config = config.copy_and_resolve_references()
  config.image_size, config.crop = decode.NATIVE, "random"
  return _open(config, split)


def native_size(config: ml_collections.ConfigDict, split: str = "train") -> int:
  """Returns the size that the images of a source have before a resize.

  Args:
    config: `config.data`; its `image_size` and `crop` have no effect.
    split: 'train' or 'test'.

  Returns:
    Median of the short sides of the first 100 images, in pixels.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The data are missing or cannot be read.
  """
  source = open_native(config, split)
  images = source.read(range(min(source.num_images, _LOOKED_AT)))
  return int(np.median([min(image.shape[:2]) for image in images]))


def labels(config: ml_collections.ConfigDict, split: str) -> np.ndarray | None:
  """Returns which digit each image shows, in the source's order.

  Args:
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    Integers `[num_images]`, or None if the images are no digits.
  """
  return digits.digits_labels(split) if _origin(config) == "digits" else None


def classes(
  config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, list[str]] | None:
  """Returns the class of each image in the source's order, if it is known.

  The classes of a folder are the folders in it. Those of a TensorFlow data set
  are its feature `label`.

  Args:
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    Integers `[num_images]` and the names of the classes; None if the source has
    no classes.

  Raises:
    DataError: The data are missing or cannot be read.
  """
  kind, _, rest = config.source.partition(":")
  if config.source == "digits":
    return digits.digits_labels(split), [str(i) for i in range(10)]
  known = {
    "folder": folder.classes,
    "prepared": prepared.labels,
    "tfds": tfds.classes,
  }
  return known[kind](rest, config, split) if kind in known else None


def decoder(config: ml_collections.ConfigDict) -> str:
  """Returns what decodes, or has decoded, the JPEGs of a source.

  Args:
    config: `config.data`.

  Raises:
    ConfigError: The package that decodes them is not installed.
    DataError: The source is prepared and cannot be read.
  """
  kind, _, rest = config.source.partition(":")
  if kind == "prepared":
    return prepared.origin(rest, config)[1]
  return decode.decoder(config)


def _origin(config: ml_collections.ConfigDict) -> str:
  """Returns the source that images come from in the first place."""
  kind, _, rest = config.source.partition(":")
  if kind == "prepared":
    return prepared.origin(rest, config)[0]
  return config.source


def _open(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens a source that decodes its images when they are read."""
  kind, _, rest = config.source.partition(":")
  _refuse_unused(config, kind)
  if config.source == "digits":
    return digits.open_digits(config, split)
  if kind == "folder" and rest:
    return folder.open_folder(rest, config, split)
  if kind == "tfds" and rest:
    return tfds.open_tfds(rest, config, split)
  if kind == "prepared" and rest:
    return prepared.open_prepared(rest, config, split)
  raise DataError(
    "config.data.source: expected digits, folder:PATH, tfds:NAME or "
    f"prepared:PATH, found {config.source!r}. Give one of them, for example "
    "--config.data.source=folder:PATH"
  )


def _refuse_unused(config: ml_collections.ConfigDict, kind: str) -> None:
  """Refuses names of splits and features that a kind of source does not have.

  They would be ignored otherwise, and other images used than those named.
  """
  kinds = {
    "train_split": ("folder", "tfds"),
    "test_split": ("folder", "tfds"),
    "feature": ("tfds",),
  }
  for field, having in kinds.items():
    if config[field] and kind not in having:
      raise DataError(
        f"config.data.{field}={config[field]!r} has no meaning for "
        f"config.data.source={config.source!r}. It is a field of "
        f"{' and '.join(f'{x}:' for x in having)} sources. Leave it empty: "
        f"--config.data.{field}="
      )


def _check(config: ml_collections.ConfigDict, split: str) -> None:
  """Refuses values that no source can serve."""
  config_lib.check_group(config, "data")
  if config.jpeg_dct == jpeg.FAST:
    jpeg.simplejpeg()  # It may be missing.
  if split not in base.SPLITS:
    raise DataError(f"split: expected train or test, found {split!r}.")


def _cache(source: Source, config: ml_collections.ConfigDict) -> Source:
  """Decodes all images into memory if they fit into `cache_gib`."""
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
  else:  # The long sides of these images differ.
    images = [None] * source.num_images
  decoded = tqdm.tqdm(
    source.read(range(source.num_images)),
    f"decoding {source.name}",
    source.num_images,
    unit="image",
    delay=2,  # seconds, so that small sets show no bar
  )
  for i, image in enumerate(decoded):
    images[i] = image
  if skipped := source.skipped():
    print(skipped, file=sys.stderr)

  def read(indices):
    return (images[i] for i in indices)

  return source._replace(read=read, stream=None)
