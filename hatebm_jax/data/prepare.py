r"""Command line: makes the images of a source once, at the training size.

  python -m hatebm_jax.data.prepare SOURCE OUT --config=imagenet128

SOURCE is a source such as `folder:PATH` or `tfds:NAME`. OUT gets the images
that a run with this config trains on, and `--config.data.source=prepared:OUT`
reads them. If the command is stopped, give it again: it goes on where it was.
After it is done, the same command checks all files and makes damaged ones
again.

Several hosts divide the work if each has a shard of its own, here the second
host of four. They write into one folder that all of them see, or a bucket:

  python -m hatebm_jax.data.prepare SOURCE OUT --shard=1/4
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tqdm
from absl import app, flags, logging
from etils import epath

from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors
from hatebm_jax.data import decode, prepared_set, sources
from hatebm_jax.data.base import DataError, Source
from hatebm_jax.run import buckets, files

IMAGES_PER_FILE = 8192
# A record in a chunk of its own can be read without its neighbours. Pixels of
# photographs hardly get smaller without loss, and decompressing takes time.
_WRITER_OPTIONS = "group_size:1,uncompressed"
# These fields of `set.json` are the same for everyone who writes into a set.
_SETTINGS = ("source", "decoder", "num_images", "classes", "labels_sha256")


class Shard(NamedTuple):
  """The part of the files that one of several hosts makes.

  Attributes:
    index: Number of the part, in [0, count).
    count: Number of parts. File i belongs to part i modulo `count`.
  """

  index: int
  count: int


ALL = Shard(0, 1)


def prepare(
  config: ml_collections.ConfigDict,
  split: str,
  out: str,
  shard: Shard = ALL,
  images_per_file: int = IMAGES_PER_FILE,
) -> str:
  """Makes the images of a split, or goes on where a stopped call was.

  Args:
    config: `config.data`, whose source is the one to read.
    split: 'train' or 'test'.
    out: Path of the folder that gets the set, a local one or a URL.
    shard: Part of the files that is made. Others make the rest, before, after
      or at the same time.
    images_per_file: Largest number of images in a file of a new set.

  Returns:
    Path of the set's folder.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The source cannot be read; the folder holds images of another
      source, or another process is writing the same files.
  """
  config = config.copy_and_resolve_references()
  config.cache_gib = 0.0  # Every image is read once.
  source = sources.open_source(config, split)
  folder = files.as_path(out) / prepared_set.set_name(config, split)
  folder.mkdir(parents=True, exist_ok=True)
  record = _begin(folder, source, config, split, shard, images_per_file)
  numbers = range(shard.index, prepared_set.num_files(record), shard.count)
  with _alone(folder, numbers):
    _write(folder, record, source, numbers)
  # Another process may have begun the set in the same moment.
  _check_same(folder, record)
  _say_state(folder, record)
  return str(folder)


@contextlib.contextmanager
def _alone(folder: epath.Path, numbers: Iterable[int]) -> Iterator[None]:
  """Keeps other processes from writing the same files of a local set.

  The byte `i` of the file `lock` is locked for the file of images `i`. In a
  bucket there are no locks: an object is replaced by an equal one.
  """
  if buckets.is_bucket(folder):
    yield
    return
  with open(folder / "lock", "w") as file:
    for i in numbers:
      try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, i)
      except (BlockingIOError, PermissionError) as error:
        raise DataError(
          f"{folder}: another process prepares the same files. Wait until it "
          "is done, or give each process a shard of its own: --shard=0/2 and "
          "--shard=1/2"
        ) from error
    yield


def _begin(
  folder: epath.Path,
  source: Source,
  config: ml_collections.ConfigDict,
  split: str,
  shard: Shard,
  images_per_file: int,
) -> dict[str, Any]:
  """Returns the record of a set, and writes it if the set is a new one."""
  classes = sources.classes(config, split)
  numbers, names = (np.empty(0), []) if classes is None else classes
  labels = np.asarray(numbers, "<i4").tobytes()
  record = {
    "source": config.source,
    "decoder": decode.decoder(config),
    "num_images": source.num_images,
    "images_per_file": images_per_file,
    "classes": names,
    "labels_sha256": hashlib.sha256(labels).hexdigest(),
  }
  old = prepared_set.read_record(folder)
  if old is not None:
    _check_same(folder, record)
    record = old
  path = folder / prepared_set.LABELS
  if not path.is_file() or files.sha256(path) != record["labels_sha256"]:
    _write_equal(path, labels, shard)
  if old is None:
    _write_equal(
      folder / prepared_set.RECORD, json.dumps(record, indent=1) + "\n", shard
    )
  return record


def _write_equal(path: epath.Path, content: str | bytes, shard: Shard) -> None:
  """Writes a file that others may write with equal content at the same time."""
  if buckets.is_bucket(path):
    files.write_atomic(path, content)
    return
  own = path.with_name(f"{path.name}.{shard.index}")
  files.write_atomic(own, content)
  own.replace(path)


def _check_same(folder: epath.Path, record: dict[str, Any]) -> None:
  """Checks that a set is made from the same images in the same way."""
  old = prepared_set.read_record(folder)
  for name in _SETTINGS:
    if old[name] != record[name]:
      raise DataError(
        f"{folder} was prepared with another {name}: expected "
        f"{_short(record[name])}, found {_short(old[name])}. Name another "
        "folder, or delete this one."
      )


def _short(value: Any) -> str:
  """Returns a value for a message."""
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:77]}..."


def _write(
  folder: epath.Path, record: dict[str, Any], source: Source, numbers: range
) -> None:
  """Writes those of some files of a set that are missing or damaged."""
  sizes = prepared_set.sizes(folder)
  missing = [i for i in numbers if not _is_whole(folder, i, sizes)]
  if len(missing) < len(numbers):
    print(
      f"{folder}: {len(numbers) - len(missing)} of {len(numbers)} files are "
      "there and whole."
    )
  if not missing:
    return
  per_file, num_images = record["images_per_file"], record["num_images"]
  ranges = {
    i: range(i * per_file, min((i + 1) * per_file, num_images)) for i in missing
  }
  images = iter(
    tqdm.tqdm(
      source.read(itertools.chain.from_iterable(ranges.values())),
      folder.name,
      sum(map(len, ranges.values())),
      unit="image",
    )
  )
  for i, places in ranges.items():
    path = prepared_set.file_path(folder, i)
    entry = _write_file(path, itertools.islice(images, len(places)))
    files.write_json(prepared_set.entry_path(folder, i), entry)
  if skipped := source.skipped():
    print(skipped, file=sys.stderr)


def _is_whole(folder: epath.Path, number: int, sizes: dict[str, int]) -> bool:
  """Says whether a file is the one that was written.

  An object in a bucket is not read for that; its size is compared.
  """
  path = prepared_set.file_path(folder, number)
  if prepared_set.entry_path(folder, number).name not in sizes:
    return False
  entry = prepared_set.read_entry(folder, number)
  if sizes.get(path.name) != entry["num_bytes"]:
    return False
  return buckets.is_bucket(path) or files.sha256(path) == entry["sha256"]


def _write_file(
  path: epath.Path, images: Iterator[np.ndarray]
) -> dict[str, Any]:
  """Writes a file of images whole or not at all; returns its entry."""
  if not buckets.is_bucket(path):
    partial = f"{path}.partial"
    entry = _write_local(partial, images)
    os.replace(partial, path)
    return entry
  with tempfile.TemporaryDirectory(prefix="hatebm_") as folder:
    file = os.path.join(folder, path.name)
    entry = _write_local(file, images)
    buckets.upload(file, path)
  return entry


def _write_local(path: str, images: Iterator[np.ndarray]) -> dict[str, Any]:
  """Writes a local file of images; returns its entry."""
  module = prepared_set.array_record()
  writer = module.ArrayRecordWriter(path, _WRITER_OPTIONS)
  try:
    for image in images:
      writer.write(prepared_set.HEADER.pack(*image.shape) + image.tobytes())
  finally:
    writer.close()
  with open(path, "rb") as file:
    os.fsync(file.fileno())
  return {"num_bytes": os.path.getsize(path), "sha256": files.sha256(path)}


def _say_state(folder: epath.Path, record: dict[str, Any]) -> None:
  """Prints whether a set is complete."""
  found = prepared_set.sizes(folder)
  total = prepared_set.num_files(record)
  entries = (prepared_set.entry_path(folder, i).name for i in range(total))
  if left := sum(x not in found for x in entries):
    print(
      f"{folder}: {left} of {total} files are missing. They belong to other "
      "shards."
    )
  else:
    print(f"{folder}: {record['num_images']:,} images, the set is complete.")


def _shard(text: str) -> Shard:
  """Reads the flag --shard."""
  match = re.fullmatch(r"(\d+)/(\d+)", text)
  shard = Shard(*map(int, match.groups())) if match else None
  if shard is None or shard.index >= shard.count:
    raise errors.ConfigError(
      f"--shard: expected I/N with I from 0 to N - 1, such as 0/4 on the first "
      f"of four hosts, found {text!r}. Correct it."
    )
  return shard


def main(argv: list[str]) -> int:
  """Prepares the splits of a source; returns the exit status."""
  if len(argv) != 3:
    raise app.UsageError("Give two arguments: SOURCE OUT.")
  logging.set_verbosity(logging.WARNING)
  config, (_, source, out) = flags.FLAGS["config"].value, argv
  try:
    shard = _shard(flags.FLAGS["shard"].value)
    config = config.copy_and_resolve_references()
    config.data.source = source
    config_lib.check(config)
    prepare(config.data, "train", out, shard)
    try:
      sources.open_native(config.data, "test")
    except DataError as error:
      print(f"Only the split train was prepared. {error}", file=sys.stderr)
      return 0
    prepare(config.data, "test", out, shard)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("Interrupted. The same command goes on.", file=sys.stderr)
    return 130
  return 0


def run() -> None:
  """Runs the command."""
  flags.DEFINE_string(
    "shard",
    "0/1",
    "With I/N, this command makes the part I of N parts of the files, I from 0 "
    "to N - 1. Each of several hosts makes another part.",
  )
  config_flag.define(
    "This is the config whose images are prepared: the fields of its group "
    "`data` say how."
  )
  config_flag.run(main, default="imagenet128")


if __name__ == "__main__":
  run()
