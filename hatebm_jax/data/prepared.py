"""The source `prepared:PATH`: images that were made once at the training size.

`prepared_set.py` describes the files. Nothing is decoded when an image is read,
and any image can be read at any time. A set in a bucket is copied into a local
folder before its first image is read.
"""

import concurrent.futures
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

import ml_collections
import numpy as np
from etils import epath

from hatebm_jax.data import bucket_copy, decode, prepared_set
from hatebm_jax.data.base import DataError, Source
from hatebm_jax.run import buckets

# Set for a fast start of a reader at any place, by the format's documentation.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER = 2**16  # bytes; the default, 1 MiB, is for reading in order
_READ_AHEAD = 256  # images
_NUM_READERS = 8  # threads


def open_prepared(
  path: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared set of images.

  Args:
    path: Path of the folder that `prepare.py` made, a local one or a URL.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source. Its images are those of the source that the set was made from,
    in the same order.

  Raises:
    DataError: The set is missing, not complete, or its files are not those that
      were written; or it is in a bucket and there is no room for a copy.
  """
  found = prepared_set.find(path, config, split)
  if buckets.is_bucket(found.folder):
    to_copy = bucket_copy.to_copy(found, config.cache_dir)
    copy = functools.partial(bucket_copy.copy, found, config.cache_dir)
  else:
    to_copy, copy = 0, lambda: found.folder
  read = functools.partial(
    _read, found, _Files(found, copy), config.image_size, config.channels
  )
  return Source(
    f"prepared:{path} {found.folder.name}",
    found.record["num_images"],
    config.image_size,
    read,
    to_copy=to_copy,
  )


def labels(
  path: str, config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, list[str]] | None:
  """Returns the class of each image of a set, and the names of the classes.

  Args:
    path: Path of the folder that `prepare.py` made, a local one or a URL.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    int32 `[num_images]` and the names; None if the source had no classes.

  Raises:
    DataError: The set is missing, or its labels are not what was written.
  """
  found = prepared_set.find(path, config, split)
  if not found.record["classes"]:
    return None
  file = found.folder / prepared_set.LABELS
  content = file.read_bytes() if file.is_file() else b""
  if hashlib.sha256(content).hexdigest() != found.record["labels_sha256"]:
    raise prepared_set.damage(
      found.folder, f"{file.name} is not what was written"
    )
  return np.frombuffer(content, "<i4"), found.record["classes"]


def origin(path: str, config: ml_collections.ConfigDict) -> tuple[str, str]:
  """Returns the source that images were made from, and the decoder of JPEGs.

  Args:
    path: Path of the folder that `prepare.py` made, a local one or a URL.
    config: `config.data`. Of several sets, the first one with its `jpeg_dct` is
      looked at.

  Raises:
    DataError: There is no such set, or its `set.json` cannot be read.
  """
  records = prepared_set.records(path, f"_{config.jpeg_dct}")
  record = (
    records[0] if records else prepared_set.find(path, config, "train").record
  )
  return record["source"], record["decoder"]


class _Files:
  """The files of a set: opened when they are needed, and left open.

  Several threads may share one instance.
  """

  def __init__(self, found: prepared_set.Set, copy: Callable[[], epath.Path]):
    """Opens nothing yet.

    Args:
      found: The set.
      copy: Function that returns a local folder with its files.
    """
    self._module = prepared_set.array_record()
    self._found, self._copy, self._lock = found, copy, threading.Lock()
    self._locks = [threading.Lock() for _ in found.entries]
    self._open = {}

  def make_local(self) -> None:
    """Copies the files of a set in a bucket, if there is no copy yet."""
    with self._lock:
      self._folder = self._copy()
      self._copy = lambda: self._folder

  def read(self, number: int, places: list[int]) -> list[bytes]:
    """Returns the records at increasing places of a file."""
    with self._locks[number]:
      if number not in self._open:
        self._open[number] = self._module.ArrayRecordReader(
          str(prepared_set.file_path(self._folder, number)),
          _READER_OPTIONS,
          file_reader_buffer_size=_READER_BUFFER,
        )
      return self._open[number].read(places)

  def damage(self, name: str) -> DataError:
    """Returns the error for an image that cannot be read.

    Args:
      name: Name of the error.
    """
    what = f"an image cannot be read ({name})"
    if self._folder == self._found.folder:
      return prepared_set.damage(self._folder, what)
    return DataError(
      f"{self._folder}, a copy of {self._found.folder}, is damaged: {what}. "
      "Delete this copy and start again: it is made anew."
    )


def _read(
  found: prepared_set.Set,
  opened: _Files,
  image_size: int,
  channels: int,
  indices: Iterable[int],
) -> Iterator[np.ndarray]:
  """Yields the images at increasing indices."""

  def read_group(group):
    return [x for part in group for x in opened.read(*part)]

  indices = iter(indices)
  while chunk := list(itertools.islice(indices, _READ_AHEAD)):
    opened.make_local()
    numbers, places = np.divmod(chunk, found.record["images_per_file"])
    parts = [
      (int(number), places[numbers == number].tolist())
      for number in np.unique(numbers)
    ]
    # A batch may have images of many files, so a thread reads several files.
    size = -(-len(parts) // _NUM_READERS)
    groups = [parts[i : i + size] for i in range(0, len(parts), size)]
    try:
      for records in _threads().map(read_group, groups):
        for record in records:
          yield _image(image_size, channels, record)
    # array_record has errors of its own where a file is damaged.
    except (OSError, RuntimeError, ValueError, LookupError) as error:
      raise opened.damage(type(error).__name__) from error


def _image(image_size: int, channels: int, content: bytes) -> np.ndarray:
  """Returns the image of a record, uint8 `[height, width, channels]`.

  Raises:
    ValueError: The record has another size.
  """
  header = prepared_set.HEADER.size
  shape = tuple(np.frombuffer(content[:header], "<u4"))
  if len(shape) != 3 or shape[2] != channels:
    raise ValueError("no image")
  if image_size not in (decode.NATIVE, min(shape[:2])):
    raise ValueError("another size")
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(_NUM_READERS, "prepared")
