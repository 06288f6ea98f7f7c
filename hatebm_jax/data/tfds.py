"""The source `tfds:NAME`: images of TensorFlow Datasets.

The images are read in order, or streamed and shuffled. TensorFlow only reads
and shuffles encoded images; Pillow decodes them, as it decodes those of a
folder. `tfds_files.py` checks the files before tensorflow_datasets reads them.
"""

import difflib
import glob
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np

from hatebm_jax.data import decode, tfds_files
from hatebm_jax.data.base import SPLITS, DataError, Source, pick_split

# Number of encoded images in the buffer: about 0.9 GB of ImageNet.
_SHUFFLE_BUFFER = 8192


def open_tfds(
  name: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared data set.

  Args:
    name: Name of the data set as `tfds.builder` takes it.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source. Its `stream` is set.

  Raises:
    DataError: The data set or its split does not exist, is not prepared, or
      has no images.
  """
  builder = _builder(name, config.data_dir)
  tfds_split = _pick_split(name, builder, split)
  tfds_files.check_shards(name, builder, tfds_split)
  trouble = (
    f"Cannot read an image of tfds:{name}, split {tfds_split}. Delete "
    f"{builder.data_path} and prepare the data set again"
  )

  def decode_all(encoded):
    return decode.map_decode(
      lambda item: _decode(item, config, trouble), _readable(encoded, trouble)
    )

  def read(indices):
    return decode_all(_pick(builder, tfds_split, indices))

  def stream(seed, start, process_index, process_count):
    # All hosts read parts of the same size, so that their epochs stay together.
    parts = _tfds().even_splits(tfds_split, process_count, drop_remainder=True)
    epoch, skipped = divmod(start, num_images // process_count)
    return decode_all(
      _shuffled(builder, parts[process_index], seed, epoch, skipped)
    )

  num_images = builder.info.splits[tfds_split].num_examples
  return Source(
    f"tfds:{name} {tfds_split}", num_images, config.image_size, read, stream
  )


def _pick_split(name: str, builder: Any, split: str) -> str:
  """Returns the name that a data set has for a split."""
  tfds_split = pick_split(split, builder.info.splits)
  if tfds_split is None:
    raise DataError(
      f"tfds:{name} has no {split} images: expected one of the splits "
      f"{list(SPLITS[split])}, found {list(builder.info.splits)}. Give another "
      "data set: --config.data.source=tfds:NAME"
    )
  return tfds_split


def _decode(
  encoded: bytes, config: ml_collections.ConfigDict, trouble: str
) -> np.ndarray:
  try:
    return decode.decode(encoded, config)
  except decode.BadImageError as error:  # A prepared data set should be whole.
    raise DataError(f"{trouble} ({error.reason}).") from error


def _tfds() -> Any:
  """Imports tensorflow_datasets and keeps TensorFlow on the CPU.

  The import takes seconds.
  """
  import tensorflow as tf
  import tensorflow_datasets as tfds

  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tfds


def _builder(name: str, data_dir: str) -> Any:
  """Returns the builder of a prepared data set of images."""
  tfds_files.check_name(name)
  tfds = _tfds()
  directory = data_dir or tfds.core.constants.DATA_DIR
  try:
    parsed, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    folder = tfds.core.Path(directory).expanduser() / parsed.name
    tfds_files.check_classes(folder)
    builder = tfds.builder(name, data_dir=data_dir or None)
  except DataError:
    raise
  except tfds.core.DatasetNotFoundError as error:
    raise DataError(_unknown(name, directory)) from error
  # The version or config may be wrong, or files may be damaged. tfds parses
  # them in so many places that no list of its exceptions is complete.
  except Exception as error:
    found = " ".join(f"{error}".split())[:500] or type(error).__name__
    raise DataError(
      f"config.data.source: tfds:{name} cannot be opened: {found}. Check the "
      "name, or prepare the data set again."
    ) from error
  _check_images(name, data_dir, builder)
  return builder


def _unknown(name: str, directory: str) -> str:
  """Returns the message for a data set that does not exist."""
  near = difflib.get_close_matches(name, _tfds().list_builders())
  return (
    f"config.data.source: expected a data set of TensorFlow Datasets, found "
    f"{name!r}. TensorFlow Datasets does not know this name (near names: "
    f"{', '.join(near) or 'none'}), and {directory} does not contain it. Give "
    "a known name, --config.data.source=tfds:NAME, or the folder in which your "
    "own data set was prepared, --config.data.data_dir=DIR"
  )


def _check_images(name: str, data_dir: str, builder: Any) -> None:
  """Checks that a data set is prepared and has images."""
  tfds = _tfds()
  if not builder.is_prepared():
    path = f"{builder.data_path}"
    if glob.escape(path) != path:
      raise DataError(
        f"tfds:{name} cannot be opened in {path}: tensorflow_datasets takes "
        "the characters * ? [ in a path for a pattern. Rename the folder, or "
        "give a link to it: --config.data.data_dir=DIR"
      )
    raise DataError(_how_to_prepare(builder, name, data_dir))
  features = builder.info.features
  is_dict = isinstance(features, tfds.features.FeaturesDict)
  image = dict(features.items()).get("image") if is_dict else None
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise DataError(
      "config.data.source: expected a data set with a uint8 image as its "
      f"feature 'image', found tfds:{name} with {builder.info.features}. Give "
      "another data set: --config.data.source=tfds:NAME"
    )


def _readable(encoded: Iterator[bytes], trouble: str) -> Iterator[bytes]:
  """Adds the data set's name to TensorFlow's errors about damaged files."""
  import tensorflow as tf

  try:
    yield from encoded
  except (tf.errors.OpError, OSError, ValueError) as error:
    raise DataError(f"{trouble} ({type(error).__name__}).") from error


def _how_to_prepare(builder: Any, name: str, data_dir: str) -> str:
  """Returns the message for a data set that is not prepared."""
  # `tfds build` would be shorter, but it fails without Apache Beam (4.9.10).
  where = f", data_dir='{data_dir}'" if data_dir else ""
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  config = "tfds.download.DownloadConfig(manual_dir='DOWNLOADS')"
  message = (
    f"tfds:{name} is not prepared: found nothing in {builder.data_path}. If it "
    "is in another folder, set --config.data.data_dir=DIR. This command "
    "downloads and prepares it:\n"
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}'{where}).download_and_prepare("
    f'{f"download_config={config}" if manual else ""})"'
  )
  if manual:
    message += f"\nDownload these files into DOWNLOADS by hand first:\n{manual}"
  return message


def _encoded(builder: Any, split: Any, shuffle_seed: int | None) -> Any:
  """Returns a tf.data.Dataset of encoded images; a seed shuffles its files."""
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
      # Without this, tfds refuses to shuffle a data set that is stored in an
      # order of its own.
      enable_ordering_guard=False,
    ),
  )
  return dataset.map(lambda example: example["image"])


def _pick(builder: Any, split: str, indices: Iterable[int]) -> Iterator[bytes]:
  """Reads through a split in order and yields the images at the indices."""
  images = enumerate(_encoded(builder, split, None).as_numpy_iterator())
  for wanted in indices:
    found = next((image for i, image in images if i == wanted), None)
    if found is None:
      raise ValueError(f"no image {wanted}")
    yield found


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
