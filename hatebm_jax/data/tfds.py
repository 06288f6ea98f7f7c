"""The source `tfds:NAME`: images of TensorFlow Datasets.

Files of the format array_record are read by random access, without TensorFlow.
TensorFlow reads files of other formats in order, or streams and shuffles them
(`tfds_stream.py`). In both cases Pillow decodes the images, as it decodes those
of a folder. `tfds_files.py` checks the files before tensorflow_datasets reads
them.
"""

import difflib
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np

from hatebm_jax.data import decode, levels, tfds_files, tfds_stream
from hatebm_jax.data.base import SPLITS, DataError, Source, pick_split

_RANDOM_ACCESS = "array_record"
_FEATURE, _LABEL = "image", "label"
# Pillow would read the bytes of a float32 image as four channels.
_DTYPES = (np.uint8, np.uint16)


def open_tfds(
  name: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared data set.

  Args:
    name: Name of the data set as `tfds.builder` takes it.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source. Its `stream` is set if the files have no random access.

  Raises:
    DataError: The data set or its split does not exist, is not prepared, or
      has no images. Or TensorFlow is needed and cannot be imported.
  """
  builder = _builder(name, config)
  feature = config.feature or _FEATURE
  tfds_split = _pick_split(name, builder, split, config[f"{split}_split"])
  tfds_files.check_shards(name, builder, tfds_split)
  trouble = (
    f"Cannot read an image of tfds:{name}, split {tfds_split}. Delete "
    f"{builder.data_path} and prepare the data set again"
  )

  at, shuffled = _readers(name, builder, tfds_split, feature, trouble)
  title = f"tfds:{name} {tfds_split}"
  num_images = builder.info.splits[tfds_split].num_examples
  white = levels.white(title, at(range(min(num_images, levels.LOOKED_AT))))

  def decode_all(encoded):
    return decode.map_decode(
      lambda item: _decode(item, config, white, trouble), encoded
    )

  return Source(
    title,
    num_images,
    config.image_size,
    read=lambda indices: decode_all(at(indices)),
    stream=shuffled and (lambda *place: decode_all(shuffled(*place))),
  )


def classes(
  name: str, config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, list[str]] | None:
  """Returns the class of each image of a prepared data set.

  Args:
    name: Name of the data set as `tfds.builder` takes it.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    Integers `[num_images]` and the names of the classes; None if the data set
    has no feature `label` that is a class.

  Raises:
    DataError: The data set cannot be read.
  """
  builder = _builder(name, config)
  feature = dict(builder.info.features.items()).get(_LABEL)
  if not isinstance(feature, _tfds().features.ClassLabel):
    return None
  tfds_split = _pick_split(name, builder, split, config[f"{split}_split"])
  tfds_files.check_shards(name, builder, tfds_split)
  trouble = f"Cannot read a label of tfds:{name}, split {tfds_split}"
  at, _ = _readers(name, builder, tfds_split, _LABEL, trouble)
  num_images = builder.info.splits[tfds_split].num_examples
  return np.array(list(at(range(num_images)))), list(feature.names)


def _readers(
  name: str, builder: Any, split: str, feature: str, trouble: str
) -> tuple[Callable[..., Iterator[bytes]], Callable | None]:
  """Returns the two ways in which encoded images, or labels, are read.

  Returns:
    A function of increasing indices, and a function of what `Source.stream`
    takes. The second one is None if the files have random access.
  """
  if _file_format(builder) == _RANDOM_ACCESS:
    return _random_access(builder, split, feature, trouble), None
  tfds_stream.check_tensorflow(name, _file_format(builder))

  def at(indices):
    found = tfds_stream.pick(builder, split, feature, indices)
    return tfds_stream.readable(found, trouble)

  def shuffled(*place):
    found = tfds_stream.shuffled(builder, split, feature, *place)
    return tfds_stream.readable(found, trouble)

  return at, shuffled


def _file_format(builder: Any) -> str:
  """Returns the format of a data set's files, such as 'tfrecord'."""
  file_format = builder.info.file_format  # Old data sets do not name it.
  return file_format.value if file_format else "tfrecord"


def _random_access(
  builder: Any, split: str, feature: str, trouble: str
) -> Callable[[Iterable[int]], Iterator[bytes]]:
  """Returns a function of indices that yields encoded images, or labels."""
  from tensorflow_datasets.proto import tf_example_pb2

  raw = _tfds().decode.DeserializeMethod.RAW_BYTES
  try:
    records = builder.as_data_source(split=split, deserialize_method=raw)
  except ImportError as error:
    raise DataError(
      f"{builder.data_path} has files of the format {_RANDOM_ACCESS}, and the "
      f"package that reads them cannot be imported ({error}). Run `pip install "
      "array_record`."
    ) from error

  def at(indices):
    try:
      for i in indices:
        example = tf_example_pb2.Example.FromString(records[int(i)])
        found = example.features.feature[feature]
        (value,) = getattr(found, found.WhichOneof("kind")).value
        yield value
    # array_record raises RuntimeError where a file is damaged, protobuf has
    # errors of its own, and a feature may have no value.
    except Exception as error:
      raise DataError(f"{trouble} ({type(error).__name__}).") from error

  return at


def _pick_split(name: str, builder: Any, split: str, wanted: str) -> str:
  """Returns the name that a data set has for a split, or a part of a split."""
  available = list(builder.info.splits)
  tfds_split = wanted or pick_split(split, available)
  if tfds_split is None:
    raise DataError(
      f"tfds:{name} has no {split} images: expected one of the splits "
      f"{list(SPLITS[split])}, found {available}. Name one of them: "
      f"--config.data.{split}_split=SPLIT. Or give another data set: "
      "--config.data.source=tfds:NAME"
    )
  try:
    builder.info.splits[tfds_split]
  except Exception as error:  # tfds raises ValueError, KeyError and others.
    found = " ".join(f"{error}".split())[:300]
    raise DataError(
      f"config.data.{split}_split={wanted!r}: expected a split of tfds:{name}, "
      f"or a part of one such as 'train[:90%]'; found the splits {available} "
      f"({found}). Name another: --config.data.{split}_split=SPLIT"
    ) from error
  return tfds_split


def _decode(
  encoded: bytes,
  config: ml_collections.ConfigDict,
  white: int | None,
  trouble: str,
) -> np.ndarray:
  try:
    return decode.decode(encoded, config, white)
  except decode.BadImageError as error:  # A prepared data set should be whole.
    raise DataError(f"{trouble} ({error.reason}).") from error


def _tfds() -> Any:
  """Imports tensorflow_datasets, which imports no TensorFlow by itself.

  Raises:
    DataError: It is not installed, or packages do not go together.
  """
  try:
    import tensorflow_datasets as tfds
  except Exception as error:  # protobuf has errors of its own.
    found = " ".join(f"{error}".split())[:300]
    raise DataError(
      "config.data.source: tfds:NAME needs the package tensorflow-datasets, "
      f"which cannot be imported ({type(error).__name__}: {found}). Run `pip "
      "install 'tensorflow-datasets>=4.9.10' 'protobuf>=6.31.1,<7'`. Where "
      "protobuf must stay older, run `pip install 'tensorflow-metadata<1.18'`."
    ) from error
  return tfds


def _builder(name: str, config: ml_collections.ConfigDict) -> Any:
  """Returns the builder of a prepared data set of images."""
  data_dir = config.data_dir and os.path.expanduser(config.data_dir)
  tfds_files.check_name(name)
  tfds = _tfds()
  directory = data_dir or tfds.core.constants.DATA_DIR
  try:
    parsed, options = tfds.core.naming.parse_builder_name_kwargs(name)
    tfds_files.check_options(name, options)
    folder = tfds.core.Path(directory).expanduser() / parsed.name
    tfds_files.check_classes(folder)
    builder = tfds.builder(name, data_dir=directory)
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
  _check_prepared(name, data_dir, builder)
  _check_feature(name, config.feature, builder)
  return builder


def _unknown(name: str, directory: str) -> str:
  """Returns the message for a data set that does not exist."""
  # The other names are those of user communities, which a server knows.
  known = _tfds().list_builders(with_community_datasets=False)
  near = difflib.get_close_matches(name, known)
  return (
    f"config.data.source: expected a data set of TensorFlow Datasets, found "
    f"{name!r}. TensorFlow Datasets does not know this name (near names: "
    f"{', '.join(near) or 'none'}), and {directory} does not contain it. Give "
    "a known name, --config.data.source=tfds:NAME, or the folder in which your "
    "own data set was prepared, --config.data.data_dir=DIR"
  )


def _check_prepared(name: str, data_dir: str, builder: Any) -> None:
  """Checks that the files of a data set exist."""
  if builder.is_prepared():
    return
  path = f"{builder.data_path}"
  if glob.escape(path) != path:
    raise DataError(
      f"tfds:{name} cannot be opened in {path}: tensorflow_datasets takes "
      "the characters * ? [ in a path for a pattern. Rename the folder, or "
      "give a link to it: --config.data.data_dir=DIR"
    )
  raise DataError(_how_to_prepare(builder, name, data_dir))


def _check_feature(name: str, wanted: str, builder: Any) -> None:
  """Checks that a data set has images of a type that can be read."""
  tfds = _tfds()
  feature, found = wanted or _FEATURE, builder.info.features
  is_dict = isinstance(found, tfds.features.FeaturesDict)
  features = dict(found.items()) if is_dict else {}
  usable = sorted(
    key
    for key, value in features.items()
    if isinstance(value, tfds.features.Image) and value.np_dtype in _DTYPES
  )
  if feature in usable:
    return
  known = f"{features[feature]}" if feature in features else f"{found}"
  advice = (
    f"Name a feature that is one, from {usable}: --config.data.feature=NAME"
    if usable
    else "Give another data set: --config.data.source=tfds:NAME"
  )
  raise DataError(
    "config.data.source: expected a data set with a uint8 or uint16 image as "
    f"its feature {feature!r}, found tfds:{name} with {known}. {advice}"
  )


def _how_to_prepare(builder: Any, name: str, data_dir: str) -> str:
  """Returns the message for a data set that is not prepared."""
  # `tfds build` would be shorter, but it fails without Apache Beam (4.9.10).
  where = f", data_dir='{data_dir}'" if data_dir else ""
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  config = "tfds.download.DownloadConfig(manual_dir='DOWNLOADS')"
  message = (
    f"tfds:{name} is not prepared: found nothing in {builder.data_path}. If it "
    "is in another folder, set --config.data.data_dir=DIR. This command "
    "downloads and prepares it, for which it needs TensorFlow:\n"
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}'{where}).download_and_prepare("
    f'{f"download_config={config}" if manual else ""})"'
  )
  if manual:
    message += f"\nDownload these files into DOWNLOADS by hand first:\n{manual}"
  return message
