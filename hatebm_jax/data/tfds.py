"""Images of TensorFlow Datasets: read in order, or streamed and shuffled.

TensorFlow only reads and shuffles encoded images; Pillow decodes them, as it
does those of a folder.

A prepared data set may come from a stranger. Its files name Python classes,
whose modules tensorflow_datasets imports: names that are not its own are
refused before it sees them.
"""

import difflib
import itertools
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np

from hatebm_jax.data.sources import (
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
# Up to so many bytes, the records of local files are looked over when a data
# set is opened: all of CelebA, not ImageNet.
_LOOKED_OVER = 2**32
# A record has its length and a CRC before it, and another CRC behind it.
_LENGTH, _BEFORE, _BEHIND = struct.Struct("<Q"), 12, 4
# Fields of features.json and dataset_info.json that name a class to import.
_CLASS_FIELDS = ("type", "pythonClassName", "python_class_name")
_OWN_CLASS = re.compile(r"tensorflow_datasets(\.\w+)+")


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
  _check_shards(name, builder, tfds_split)
  trouble = (
    f"Cannot read an image of tfds:{name}, split {tfds_split}. Delete "
    f"{builder.data_path} and prepare the data set again"
  )

  def decode_bytes(encoded):
    try:
      return decode(encoded, config)
    except BadImageError as error:  # A prepared data set is meant to be whole.
      raise DataError(f"{trouble} ({error.reason})") from error

  def read(indices):
    encoded = _pick(builder, tfds_split, indices)
    return map_decode(decode_bytes, _readable(encoded, trouble))

  def stream(seed, start, process_index, process_count):
    # Hosts read parts of the same size, so that their epochs stay together.
    epoch, skipped = divmod(start, num_images // process_count)
    part = _tfds().even_splits(tfds_split, process_count, drop_remainder=True)[
      process_index
    ]
    encoded = _shuffled(builder, part, seed, epoch, skipped)
    return map_decode(decode_bytes, _readable(encoded, trouble))

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
  if re.match(r"[\w-]+:[a-zA-Z]", name):
    raise DataError(
      f"config.data.source: tfds:{name} has a namespace, from which "
      "tensorflow_datasets would download and run code: expected the name of a "
      "data set, as in tfds:cifar10 or tfds:cifar10:3.0.2"
    )
  tfds = _tfds()
  try:
    _check_classes(
      name, tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR)
    )
    builder = tfds.builder(name, data_dir=data_dir or None)
  except DataError:
    raise
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
  # A wrong version or config; or files that are damaged, which tfds parses in
  # so many places that no list of what they raise is complete.
  except Exception as error:
    found = " ".join(f"{error}".split())[:500] or type(error).__name__
    raise DataError(
      f"config.data.source: tfds:{name} cannot be opened: {found}. Check the "
      "name, or prepare the data set again"
    ) from error
  _check_features(name, data_dir, builder)
  return builder


def _check_features(name: str, data_dir: str, builder: Any) -> None:
  """Checks that a data set is there, and one of images."""
  tfds = _tfds()
  if not builder.is_prepared():
    raise DataError(_how_to_prepare(builder, name, data_dir))
  features = builder.info.features
  is_dict = isinstance(features, tfds.features.FeaturesDict)
  image = dict(features.items()).get("image") if is_dict else None
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise DataError(
      "config.data.source: expected a data set with a uint8 image as its "
      f"feature 'image', found tfds:{name} with {builder.info.features}. Give "
      "another: --config.data.source=tfds:NAME"
    )


def _check_classes(name: str, data_dir: Any) -> None:
  """Checks what a data set's files would have tensorflow_datasets import."""
  tfds = _tfds()
  parsed, _ = tfds.core.naming.parse_builder_name_kwargs(name)
  folder = data_dir.expanduser() / parsed.name
  # It is found in NAME/VERSION or NAME/CONFIG/VERSION.
  for depth in ("*/", "*/*/"):
    for file in ("features.json", "dataset_info.json"):
      for path in folder.glob(depth + file):
        _walk(_json(path), path)
  metadata = folder / ".config" / "metadata.json"
  if metadata.exists():
    default = _json(metadata).get("default_config_name")
    # Not the way to a folder that was not checked.
    if default is not None and not re.fullmatch(r"\w[\w.+-]*", default):
      raise DataError(f"{metadata} names the config {default!r}, which is none")


def _json(path: Any) -> Any:
  try:
    return json.loads(path.read_text())
  except (OSError, RecursionError, ValueError) as error:
    raise DataError(
      f"{path} is not valid JSON ({error}). Prepare the data set again"
    ) from error


def _walk(value: Any, path: Any) -> None:
  """Checks the names of classes in JSON, and in JSON within its strings."""
  if isinstance(value, dict):
    for field, content in value.items():
      if field in _CLASS_FIELDS and isinstance(content, str):
        _check_class(content, path)
      _walk(content, path)
  elif isinstance(value, list):
    for content in value:
      _walk(content, path)
  elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
    try:
      inner = json.loads(value)
    except ValueError:
      return
    _walk(inner, path)


def _check_class(class_name: str, path: Any) -> None:
  # Without a dot, it names no module.
  if "." in class_name and not _OWN_CLASS.fullmatch(class_name):
    raise DataError(
      f"{path} asks for the class {class_name[:80]!r}: expected those of "
      "tensorflow_datasets alone, and nothing of other modules is imported. "
      "Prepare the data set again with its features"
    )


def _check_shards(name: str, builder: Any, split: str) -> None:
  """Checks that a split's files are its own and can hold what it claims."""
  info = builder.info.splits[split]
  try:
    files = info.filepaths
    sizes = [file.stat().length for file in files]
  except (OSError, ValueError) as error:
    raise DataError(
      f"tfds:{name}, split {split}: a file is missing ({error}). Prepare the "
      "data set again"
    ) from error
  # Files elsewhere may be anybody's, or on another machine.
  elsewhere = [file for file in files if file.parent != builder.data_path]
  if elsewhere or not 0 < info.num_examples <= sum(sizes):
    raise DataError(
      f"tfds:{name}, split {split}: expected files in {builder.data_path} of 1 "
      f"to {sum(sizes)} images, found "
      f"{elsewhere[0] if elsewhere else info.num_examples}. Prepare the data "
      "set again"
    )
  if (
    sum(sizes) <= _LOOKED_OVER and builder.info.file_format.value == "tfrecord"
  ):
    for file in files:
      _check_records(name, split, os.fspath(file))


def _check_records(name: str, split: str, file: str) -> None:
  """Checks that no record claims more bytes than its file has.

  TensorFlow claims the memory first, and its process ends where there is less.
  """
  if "://" in file:  # In a bucket, a look at each record takes too long.
    return
  with open(file, "rb") as opened:
    at, end = 0, os.fstat(opened.fileno()).st_size
    while at < end:
      before = os.pread(opened.fileno(), _BEFORE, at).ljust(_BEFORE, b"\xff")
      (length,) = _LENGTH.unpack_from(before)
      at += _BEFORE + length + _BEHIND
  if at > end:
    raise DataError(
      f"tfds:{name}, split {split}: expected whole records, found {file} cut "
      f"or damaged: its last record ends {at - end} bytes beyond its end. "
      "Prepare the data set again"
    )


def _readable(encoded: Iterator[bytes], trouble: str) -> Iterator[bytes]:
  """Names the data set in TensorFlow's errors: damage, or a missing part."""
  import tensorflow as tf

  try:
    yield from encoded
  except (tf.errors.OpError, OSError, ValueError) as error:
    raise DataError(f"{trouble} ({type(error).__name__})") from error


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
