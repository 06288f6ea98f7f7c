"""The source `prepared:PATH`: images that were made once at the training size.

`prepare.py` makes the folder. It holds a folder for each set of images, such as
`train_128_3_center_accurate`: the split, the size in pixels, the number of
channels, the crop and the DCT of JPEGs. A set has these files:

- `set.json` says where the images come from, and has the number of images and
  the SHA-256 of every file.
- `images-00000.array_record` and the following files hold an image in each
  record: height, width and channels as 4-byte integers, then the pixels. All
  integers are little-endian. The format has a checksum for each record, which
  is checked when the record is read.
- `labels.int32` has the class of each image, if the source has classes.

Nothing is decoded when an image is read, and any image can be read at any time.
"""

import concurrent.futures
import functools
import itertools
import os
import shlex
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from hatebm_jax.data import decode
from hatebm_jax.data.base import DataError, Source
from hatebm_jax.run import files

RECORD = "set.json"
LABELS = "labels.int32"
HEADER = struct.Struct("<3I")  # height, width, channels
# `set.json` has these fields.
_FIELDS = {
  "source": str,
  "decoder": str,
  "num_images": int,
  "files": list,
  "classes": list,
  "labels_sha256": str,
}
_FILE_FIELDS = {"num_images": int, "num_bytes": int, "sha256": str}
# Set for a fast start of a reader at any place, by the format's documentation.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER = 2**16  # bytes; the default, 1 MiB, is for reading in order
_READ_AHEAD = 256  # images
_NUM_READERS = 16  # files that are read at the same time


class _Set(NamedTuple):
  """A set of images and what its `set.json` says."""

  folder: str
  record: dict[str, Any]


def set_name(config: ml_collections.ConfigDict, split: str) -> str:
  """Returns the name of the folder of a set of images.

  Args:
    config: `config.data`.
    split: 'train' or 'test'.
  """
  return (
    f"{split}_{config.image_size}_{config.channels}_{config.crop}_"
    f"{config.jpeg_dct}"
  )


def file_path(folder: str, number: int) -> str:
  """Returns the path of a file of images."""
  return os.path.join(folder, f"images-{number:05d}.array_record")


def open_prepared(
  path: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared set of images.

  Args:
    path: Path of the folder that `prepare.py` made.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source. Its images are those of the source that the set was made from,
    in the same order.

  Raises:
    DataError: The set is missing, not complete, or its files are not those that
      were written.
  """
  found = _find(path, config, split)
  _check_files(found)
  title = f"prepared:{path} {os.path.basename(found.folder)}"
  return Source(
    title,
    found.record["num_images"],
    config.image_size,
    functools.partial(_read, found, config.image_size, config.channels),
  )


def labels(
  path: str, config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, list[str]] | None:
  """Returns the class of each image of a set, and the names of the classes.

  Args:
    path: Path of the folder that `prepare.py` made.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    int32 `[num_images]` and the names; None if the source had no classes.

  Raises:
    DataError: The set is missing, or its labels are not what was written.
  """
  found = _find(path, config, split)
  if not found.record["classes"]:
    return None
  file = os.path.join(found.folder, LABELS)
  if (
    not os.path.isfile(file)
    or files.sha256(file) != found.record["labels_sha256"]
  ):
    raise _damage(found, f"{LABELS} is not what was written")
  return np.fromfile(file, "<i4"), found.record["classes"]


def origin(path: str, config: ml_collections.ConfigDict) -> tuple[str, str]:
  """Returns the source that images were made from, and the decoder of JPEGs.

  Args:
    path: Path of the folder that `prepare.py` made.
    config: `config.data`. Of several sets, the first one with its `jpeg_dct` is
      looked at.

  Raises:
    DataError: There is no such set, or its `set.json` cannot be read.
  """
  top = os.path.expanduser(path)
  names = sorted(os.listdir(top)) if os.path.isdir(top) else []
  folders = [
    os.path.join(top, x) for x in names if x.endswith(f"_{config.jpeg_dct}")
  ]
  record = next(filter(None, map(read_record, folders)), None)
  record = record or _find(path, config, "train").record
  return record["source"], record["decoder"]


def read_record(folder: str) -> dict[str, Any] | None:
  """Returns what `set.json` of a folder says; None if there is no such file.

  Raises:
    DataError: The file was not written by `prepare.py`.
  """
  path = os.path.join(folder, RECORD)
  if not os.path.isfile(path):
    return None
  try:
    record = files.read_json(path, "Delete its folder.", dict)
  except files.FileError as error:
    raise DataError(f"{error}") from error
  if not _has_fields(record, _FIELDS) or not all(
    isinstance(x, dict) and _has_fields(x, _FILE_FIELDS)
    for x in record["files"]
  ):
    raise DataError(
      f"{path}: expected the fields {', '.join(_FIELDS)} of python -m "
      "hatebm_jax.data.prepare, found something else. Delete its folder and "
      "prepare the images again."
    )
  return record


def _has_fields(found: dict[str, Any], fields: dict[str, type]) -> bool:
  return all(isinstance(found.get(x), kind) for x, kind in fields.items())


def command(source: str, path: str, config: ml_collections.ConfigDict) -> str:
  """Returns the command that prepares a set.

  Args:
    source: Source of the images.
    path: Path of the folder that the sets are written into.
    config: `config.data`.
  """
  fields = "image_size", "channels", "crop", "jpeg_dct"
  overrides = (f"--config.data.{x}={config[x]}" for x in fields)
  return " ".join(
    [
      "python -m hatebm_jax.data.prepare",
      shlex.quote(source),
      shlex.quote(path),
      *overrides,
    ]
  )


def _find(path: str, config: ml_collections.ConfigDict, split: str) -> _Set:
  """Returns a complete set."""
  top = os.path.expanduser(path)
  if "://" in path or not os.path.isdir(top):
    raise DataError(
      f"config.data.source: expected a folder of prepared images, found none "
      f"at {path!r}. It must be a local or a mounted folder. This command "
      f"makes it: {command('SOURCE', path, config)}"
    )
  names = sorted(
    x for x in os.listdir(top) if os.path.isfile(os.path.join(top, x, RECORD))
  )
  name = set_name(config, split)
  if config.image_size == decode.NATIVE:
    # These images have no other size than the one that they were prepared at.
    same = (x for x in names if x.startswith(f"{split}_"))
    name = max(same, key=lambda x: x.split("_")[1].zfill(5), default=name)
  record = read_record(os.path.join(top, name))
  if record is None:
    raise DataError(
      f"{path} has no {split} images of {config.image_size} pixels, "
      f"channels={config.channels}, crop={config.crop}, "
      f"jpeg_dct={config.jpeg_dct}: expected the folder {name}, found "
      f"{', '.join(names) or 'none'}. Prepare it: "
      f"{command('SOURCE', path, config)}. Evaluation takes centre squares, "
      "so it needs a set with crop=center."
    )
  found = _Set(os.path.join(top, name), record)
  num_found = sum(x["num_images"] for x in record["files"])
  if num_found != record["num_images"] or num_found < 1:
    raise DataError(
      f"{found.folder} is not complete: expected {record['num_images']:,} "
      f"images, found {num_found:,}. Give the command again that prepares it: "
      f"{command(record['source'], path, config)}"
    )
  return found


def _check_files(found: _Set) -> None:
  """Checks that all files of a set are there and as long as they were."""
  for i, file in enumerate(found.record["files"]):
    path = file_path(found.folder, i)
    size = os.path.getsize(path) if os.path.isfile(path) else None
    if size != file["num_bytes"]:
      raise _damage(
        found,
        f"expected {file['num_bytes']:,} bytes in {os.path.basename(path)}, "
        f"found {'no file' if size is None else f'{size:,}'}",
      )


def _damage(found: _Set, what: str) -> DataError:
  return DataError(
    f"{found.folder} is damaged: {what}. Give the command again that prepared "
    "it: it checks all files and makes the damaged ones again."
  )


def _read(
  found: _Set, image_size: int, channels: int, indices: Iterable[int]
) -> Iterator[np.ndarray]:
  """Yields the images at increasing indices."""
  to_image = functools.partial(_image, image_size, channels)
  counts = [x["num_images"] for x in found.record["files"]]
  ends = np.cumsum(counts)
  reader = _reader(found.folder, len(counts))
  indices = iter(indices)
  while chunk := list(itertools.islice(indices, _READ_AHEAD)):
    chunk = np.asarray(chunk)
    numbers = np.searchsorted(ends, chunk, "right")
    parts = []
    for number in np.unique(numbers):
      first = ends[number] - counts[number]
      parts.append((number, (chunk[numbers == number] - first).tolist()))
    try:
      for records in _threads().map(lambda part: reader(*part), parts):
        yield from map(to_image, records)
    # array_record has errors of its own where a file is damaged.
    except (OSError, RuntimeError, ValueError, LookupError) as error:
      raise _damage(
        found, f"an image cannot be read ({type(error).__name__})"
      ) from error


def _image(image_size: int, channels: int, content: bytes) -> np.ndarray:
  """Returns the image of a record, uint8 `[height, width, channels]`.

  Raises:
    ValueError: The record has another size.
  """
  shape = tuple(np.frombuffer(content[: HEADER.size], "<u4"))
  if len(shape) != 3 or shape[2] != channels:
    raise ValueError("no image")
  if image_size not in (decode.NATIVE, min(shape[:2])):
    raise ValueError("another size")
  return np.frombuffer(content, np.uint8, offset=HEADER.size).reshape(shape)


def _reader(folder: str, num_files: int) -> Any:
  """Returns a function of a file's number and of places in it: the records.

  Files are opened when they are needed, and stay open.
  """
  module = array_record()

  @functools.lru_cache(maxsize=num_files)
  def opened(number):
    return module.ArrayRecordReader(
      file_path(folder, number),
      _READER_OPTIONS,
      file_reader_buffer_size=_READER_BUFFER,
    )

  return lambda number, places: opened(int(number)).read(places)


def array_record() -> Any:
  """Imports the module that reads and writes array_record files.

  Raises:
    DataError: It is not installed.
  """
  try:
    from array_record.python import array_record_module
  except ImportError as error:
    raise DataError(
      "Prepared images need the package array_record, which cannot be imported "
      f"({error}). Run `pip install array_record`."
    ) from error
  return array_record_module


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(_NUM_READERS, "prepared")
