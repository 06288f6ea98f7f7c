"""Encoded images of a TensorFlow data set, read and shuffled by TensorFlow.

Only data sets in a format without random access, such as tfrecord, need this
module. It is the one module of the package that imports TensorFlow.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hatebm_jax.data.base import DataError

# Number of encoded images in the buffer: about 0.9 GB of ImageNet.
_SHUFFLE_BUFFER = 8192


def check_tensorflow(name: str, file_format: str) -> None:
  """Imports TensorFlow and keeps it on the CPU. The import takes seconds.

  Args:
    name: Name of the data set, for the message.
    file_format: Format of the data set's files, for the message.

  Raises:
    DataError: TensorFlow is not installed or cannot be imported.
  """
  try:
    import tensorflow as tf
  except Exception as error:  # Broken installations raise errors of all kinds.
    found = " ".join(f"{error}".split())[:300]
    raise DataError(
      f"tfds:{name} has files of the format {file_format}, which only "
      "TensorFlow reads, and TensorFlow cannot be imported "
      f"({type(error).__name__}: {found}). Install it with `pip install "
      "tensorflow-cpu` (on Arm or macOS: `pip install tensorflow`). Or "
      "prepare the data set with file_format='array_record', elsewhere if need "
      "be: such files are read without TensorFlow."
    ) from error
  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)


def readable(encoded: Iterator[bytes], trouble: str) -> Iterator[bytes]:
  """Adds the data set's name to TensorFlow's errors about damaged files.

  Args:
    encoded: Iterator over encoded images.
    trouble: Message without its full stop.

  Yields:
    The items of `encoded`.

  Raises:
    DataError: TensorFlow cannot read an image.
  """
  import tensorflow as tf

  try:
    yield from encoded
  except (tf.errors.OpError, OSError, ValueError) as error:
    raise DataError(f"{trouble} ({type(error).__name__}).") from error


def pick(
  builder: Any, split: str, feature: str, indices: Iterable[int]
) -> Iterator[bytes]:
  """Reads through a split in order and yields the images at the indices.

  Args:
    builder: Builder of the data set.
    split: Name of a split, or of a part of one.
    feature: Name of the feature that is the image.
    indices: Increasing indices of images.

  Yields:
    Encoded images.
  """
  images = _encoded(builder, split, feature, None).as_numpy_iterator()
  images = enumerate(images)
  for wanted in indices:
    found = next((image for i, image in images if i == wanted), None)
    if found is None:
      raise ValueError(f"no image {wanted}")
    yield found


def shuffled(
  builder: Any,
  split: str,
  feature: str,
  seed: int,
  start: int,
  process_index: int,
  process_count: int,
) -> Iterator[bytes]:
  """Reads this host's part of a split in a new order every epoch.

  Args:
    builder: Builder of the data set.
    split: Name of a split, or of a part of one.
    feature: Name of the feature that is the image.
    seed: Seed of the order.
    start: Number of images of this host that are skipped at first.
    process_index: Index of this host.
    process_count: Number of hosts.

  Yields:
    Encoded images, without end.
  """
  import tensorflow_datasets as tfds

  # All hosts read parts of the same size, so that their epochs stay together.
  parts = tfds.even_splits(split, process_count, drop_remainder=True)
  num_images = builder.info.splits[split].num_examples
  first_epoch, skipped = divmod(start, num_images // process_count)
  for epoch in itertools.count(first_epoch):
    shuffle_seed = int(np.random.default_rng([seed, epoch]).integers(2**31))
    images = _encoded(builder, parts[process_index], feature, shuffle_seed)
    images = images.shuffle(_SHUFFLE_BUFFER, shuffle_seed)
    yield from images.skip(skipped).as_numpy_iterator()
    skipped = 0


def _encoded(
  builder: Any, split: Any, feature: str, shuffle_seed: int | None
) -> Any:
  """Returns a tf.data.Dataset of encoded images; a seed shuffles its files."""
  import tensorflow_datasets as tfds

  dataset = builder.as_dataset(
    split=split,
    shuffle_files=shuffle_seed is not None,
    decoders=tfds.decode.PartialDecoding(
      {feature: True}, decoders={feature: tfds.decode.SkipDecoding()}
    ),
    read_config=tfds.ReadConfig(
      shuffle_seed=shuffle_seed,
      try_autocache=False,
      # Without this, tfds refuses to shuffle a data set that is stored in an
      # order of its own.
      enable_ordering_guard=False,
    ),
  )
  return dataset.map(lambda example: example[feature])
