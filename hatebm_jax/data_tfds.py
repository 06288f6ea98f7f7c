"""Images of TensorFlow Datasets: read in order, or streamed and shuffled.

TensorFlow only reads and shuffles encoded images; Pillow decodes them, as it
does those of a folder.
"""

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np

from hatebm_jax.data_sources import (
  SPLITS,
  BadImageError,
  DataError,
  Source,
  decode,
  map_decode,
  pick_split,
)

# Encoded images: about 0.9 GB of ImageNet.
_SHUFFLE_BUFFER = 8192


def open_tfds(
  name: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared data set.

  Args:
    name: as in `tfds.builder`.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source, with `stream`.

  Raises:
    DataError: there is no such data set or split, it is not prepared, or it is
      not one of images.
  """
  builder = _builder(name, config.data_dir)
  tfds_split = pick_split(split, builder.info.splits)
  if tfds_split is None:
    raise DataError(
      f"tfds:{name} has no {split} images: expected one of the splits "
      f"{list(SPLITS[split])}, found {list(builder.info.splits)}"
    )
  num_images = builder.info.splits[tfds_split].num_examples

  def decode_bytes(encoded):
    try:
      return decode(encoded, config)
    except BadImageError as error:  # A prepared data set is meant to be whole.
      raise DataError(
        f"Cannot use an image of tfds:{name}, split {tfds_split}: "
        f"{error.reason}. Delete {builder.data_path} and prepare the data set "
        "again"
      ) from error

  def read(indices):
    return map_decode(decode_bytes, _pick(builder, tfds_split, indices))

  def stream(seed, start, process_index, process_count):
    # Hosts read parts of the same size, so that their epochs stay together.
    epoch, skipped = divmod(start, num_images // process_count)
    part = _tfds().even_splits(tfds_split, process_count, drop_remainder=True)[
      process_index
    ]
    encoded = _shuffled(builder, part, seed, epoch, skipped)
    return map_decode(decode_bytes, encoded)

  return Source(
    f"tfds:{name} {tfds_split}", num_images, config.image_size, read, stream
  )


def _tfds() -> Any:
  """Imports tensorflow_datasets (seconds), TensorFlow kept on the CPU."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tfds


def _builder(name: str, data_dir: str) -> Any:
  """Finds a prepared data set and checks that it is one of images."""
  tfds = _tfds()
  try:
    builder = tfds.builder(name, data_dir=data_dir or None)
  except tfds.core.DatasetNotFoundError as error:
    near = difflib.get_close_matches(name, tfds.list_builders())
    raise DataError(
      f"config.data.source: expected a data set of TensorFlow Datasets, found "
      f"{name!r}, which it does not know (near names: "
      f"{', '.join(near) or 'none'}) and which is not in "
      f"{data_dir or tfds.core.constants.DATA_DIR}. Give a known name, "
      "--config.data.source=tfds:NAME, or the folder that your own data set "
      "was prepared in, --config.data.data_dir=DIR"
    ) from error
  except (AssertionError, ValueError) as error:  # A wrong version or config.
    raise DataError(f"config.data.source: tfds:{name}: {error}") from error
  if not builder.is_prepared():
    raise DataError(_how_to_prepare(builder, name, data_dir))
  image = dict(builder.info.features.items()).get("image")
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise DataError(
      "config.data.source: expected a data set with a uint8 image as its "
      f"feature 'image', found tfds:{name} with {builder.info.features}. Give "
      "another: --config.data.source=tfds:NAME"
    )
  return builder


def _how_to_prepare(builder: Any, name: str, data_dir: str) -> str:
  """The message for a data set that is not prepared."""
  # Not `tfds build`: it fails without Apache Beam (tfds 4.9.10).
  where = f", data_dir='{data_dir}'" if data_dir else ""
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  config = "tfds.download.DownloadConfig(manual_dir='DOWNLOADS')"
  message = (
    f"tfds:{name} is not prepared: found nothing in {builder.data_path}. If it "
    "is elsewhere, set --config.data.data_dir=DIR. To download and prepare "
    'it:\npython -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}'{where}).download_and_prepare("
    f'{f"download_config={config}" if manual else ""})"'
  )
  if manual:
    message += f"\nDOWNLOADS holds what must be fetched by hand:\n{manual}"
  return message


def _encoded(builder: Any, split: Any, shuffle_seed: int | None) -> Any:
  """A tf.data.Dataset of encoded images; a seed shuffles its files."""
  tfds = _tfds()
  dataset = builder.as_dataset(
    split=split,
    shuffle_files=shuffle_seed is not None,
    decoders=tfds.decode.PartialDecoding(
      {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
    ),
    read_config=tfds.ReadConfig(
      shuffle_seed=shuffle_seed,
      try_autocache=False,
      # A data set that was stored in an order of its own is shuffled too.
      enable_ordering_guard=False,
    ),
  )
  return dataset.map(lambda example: example["image"])


def _pick(builder: Any, split: str, indices: Iterable[int]) -> Iterator[bytes]:
  """Reads through a split in its order for the images at some indices."""
  images = enumerate(_encoded(builder, split, None).as_numpy_iterator())
  for wanted in indices:
    yield next(image for i, image in images if i == wanted)


def _shuffled(
  builder: Any, split: Any, seed: int, first_epoch: int, skipped: int
) -> Iterator[bytes]:
  """Reads a split in a new order every epoch, without end."""
  for epoch in itertools.count(first_epoch):
    shuffle_seed = int(np.random.default_rng([seed, epoch]).integers(2**31))
    images = _encoded(builder, split, shuffle_seed)
    images = images.shuffle(_SHUFFLE_BUFFER, shuffle_seed)
    yield from images.skip(skipped).as_numpy_iterator()
    skipped = 0
