"""The files of images that were made once at the training size.

`prepare.py` makes the folder. It holds a folder for each set of images, such as
`train_128_3_center_accurate`: the split, the size in pixels, the number of
channels, the crop and the DCT of JPEGs. A set has these files:

- `set.json` says where the images come from, how many there are, and how many
  of them a file has. It is written first.
- `images-00000.array_record` and the following files hold an image in each
  record: height, width and channels as 4-byte integers, then the pixels. All
  integers are little-endian. The format has a checksum for each record, which
  is checked when the record is read.
- `images-00000.json` is written when such a file is whole. It has the number of
  bytes and the SHA-256. A set with all of these is complete.
- `labels.int32` has the class of each image, if the source has classes.

The folder may be a local one or lie in a bucket.
"""

import concurrent.futures
import functools
import shlex
import struct
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from hatebm_jax.data import decode
from hatebm_jax.data.base import DataError
from hatebm_jax.run import buckets, files

RECORD = "set.json"
LABELS = "labels.int32"
HEADER = struct.Struct("<3I")  # height, width, channels
_FIELDS = {
  "source": str,
  "decoder": str,
  "num_images": int,
  "images_per_file": int,
  "classes": list,
  "labels_sha256": str,
}
_ENTRY_FIELDS = {"num_bytes": int, "sha256": str}
_NUM_REQUESTS = 16  # entries that are read from a bucket at the same time


class Set(NamedTuple):
  """A complete set of images.

  Attributes:
    folder: Path of its folder.
    record: What its `set.json` says.
    entries: What the JSON file of each of its files of images says.
  """

  folder: epath.Path
  record: dict[str, Any]
  entries: list[dict[str, Any]]


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


def file_path(folder: epath.Path, number: int) -> epath.Path:
  """Returns the path of a file of images."""
  return folder / f"images-{number:05d}.array_record"


def entry_path(folder: epath.Path, number: int) -> epath.Path:
  """Returns the path of the JSON file that belongs to a file of images."""
  return folder / f"images-{number:05d}.json"


def num_files(record: dict[str, Any]) -> int:
  """Returns how many files of images a set has when it is complete."""
  return -(-record["num_images"] // record["images_per_file"])


def sizes(folder: epath.Path) -> dict[str, int]:
  """Returns the bytes of each file of a set by its name."""
  if buckets.is_bucket(folder):
    return {name: x.size for name, x in buckets.objects(folder).items()}
  found = files.entries(folder)
  return {x.name: x.stat().length for x in found if x.is_file()}


def find(path: str, config: ml_collections.ConfigDict, split: str) -> Set:
  """Returns a complete set, all of whose files are as long as they were.

  Args:
    path: Path of the folder that `prepare.py` made, a local one or a URL.
    config: `config.data`.
    split: 'train' or 'test'.

  Raises:
    DataError: The set is missing, not complete, or damaged.
  """
  folder, record = _folder(path, config, split)
  found = sizes(folder)
  total = num_files(record)
  names = (entry_path(folder, i).name for i in range(total))
  if not all(x in found for x in names):
    whole = sum(x.startswith("images-") and x.endswith(".json") for x in found)
    raise DataError(
      f"{folder} is not complete: expected {total:,} files of images, found "
      f"{whole:,} that are whole. Give the command again that prepares it: "
      f"{command(record['source'], path, config)}"
    )
  with concurrent.futures.ThreadPoolExecutor(_NUM_REQUESTS) as pool:
    read = functools.partial(read_entry, folder)
    result = Set(folder, record, list(pool.map(read, range(total))))
  for i, entry in enumerate(result.entries):
    name = file_path(folder, i).name
    if found.get(name) != entry["num_bytes"]:
      size = f"{found[name]:,}" if name in found else "no file"
      raise damage(
        folder, f"expected {entry['num_bytes']:,} bytes in {name}, found {size}"
      )
  return result


def _folder(
  path: str, config: ml_collections.ConfigDict, split: str
) -> tuple[epath.Path, dict[str, Any]]:
  """Returns the folder of a set, which may not be complete, and its record."""
  top = files.as_path(path)
  names = [x.name for x in files.entries(top) if (x / RECORD).is_file()]
  if not names:
    raise DataError(
      f"config.data.source: expected a folder of prepared images, found none "
      f"at {path!r}. This command makes it: {command('SOURCE', path, config)}"
    )
  name = set_name(config, split)
  if config.image_size == decode.NATIVE:
    # These images have no other size than the one that they were prepared at.
    same = (x for x in names if x.startswith(f"{split}_"))
    name = max(same, key=lambda x: x.split("_")[1].zfill(5), default=name)
  record = read_record(top / name)
  if record is None:
    raise DataError(
      f"{path} has no {split} images of {config.image_size} pixels, "
      f"channels={config.channels}, crop={config.crop}, "
      f"jpeg_dct={config.jpeg_dct}: expected the folder {name}, found "
      f"{', '.join(names)}. Prepare it: "
      f"{command('SOURCE', path, config)}. Evaluation takes centre squares, "
      "so it needs a set with crop=center."
    )
  return top / name, record


def records(path: str, ending: str) -> list[dict[str, Any]]:
  """Returns what each `set.json` in a folder says, in the order of the names.

  Args:
    path: Path of the folder that `prepare.py` made, a local one or a URL.
    ending: Ending of the names of the sets' folders.

  Raises:
    DataError: A `set.json` was not written by `prepare.py`.
  """
  folders = (x for x in files.entries(path) if x.name.endswith(ending))
  return list(filter(None, map(read_record, folders)))


def read_record(folder: epath.Path) -> dict[str, Any] | None:
  """Returns what `set.json` of a folder says; None if there is no such file.

  Raises:
    DataError: The file was not written by `prepare.py`.
  """
  path = folder / RECORD
  if not path.is_file():
    return None
  record = _read(path, _FIELDS)
  if record["num_images"] < 1 or record["images_per_file"] < 1:
    raise _foreign(path, "numbers of images of at least 1")
  return record


def read_entry(folder: epath.Path, number: int) -> dict[str, Any]:
  """Returns the number of bytes and the SHA-256 of a file of images.

  Raises:
    DataError: The entry was not written by `prepare.py`.
  """
  return _read(entry_path(folder, number), _ENTRY_FIELDS)


def _read(path: epath.Path, fields: dict[str, type]) -> dict[str, Any]:
  """Returns what a JSON file says that has these fields."""
  try:
    found = files.read_json(path, "Delete its folder.", dict)
  except files.FileError as error:
    raise DataError(f"{error}") from error
  if not all(isinstance(found.get(x), kind) for x, kind in fields.items()):
    raise _foreign(path, f"the fields {', '.join(fields)}")
  return found


def _foreign(path: epath.Path, expected: str) -> DataError:
  return DataError(
    f"{path}: expected {expected} of python -m hatebm_jax.data.prepare, found "
    "something else. Delete its folder and prepare the images again."
  )


def damage(folder: epath.Path, what: str) -> DataError:
  """Returns the error for a set whose files are not what was written.

  Args:
    folder: Path of the set's folder.
    what: Clause that says what is wrong.
  """
  return DataError(
    f"{folder} is damaged: {what}. Give the command again that prepared it: it "
    "checks all files and makes the damaged ones again."
  )


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
