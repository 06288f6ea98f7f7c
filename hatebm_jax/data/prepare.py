r"""Command line: makes the images of a source once, at the training size.

  python -m hatebm_jax.data.prepare SOURCE OUT --config=imagenet128

SOURCE is a source such as `folder:PATH` or `tfds:NAME`. OUT gets the images
that a run with this config trains on, and `--config.data.source=prepared:OUT`
reads them. If the command is stopped, give it again: it goes on where it was.
After it is done, the same command checks all files and makes damaged ones
again.
"""

import contextlib
import fcntl
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
import tqdm
from absl import app, flags, logging

from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors
from hatebm_jax.data import decode, prepared, sources
from hatebm_jax.data.base import DataError, Source
from hatebm_jax.run import files

IMAGES_PER_FILE = 8192
# A record in a chunk of its own can be read without its neighbours. Pixels of
# photographs hardly get smaller without loss, and decompressing takes time.
_WRITER_OPTIONS = "group_size:1,uncompressed"
# These fields of `set.json` stay what they were when the set was begun.
_SETTINGS = ("source", "decoder", "num_images", "classes", "labels_sha256")


def prepare(
  config: ml_collections.ConfigDict,
  split: str,
  out: str,
  images_per_file: int = IMAGES_PER_FILE,
) -> str:
  """Makes the images of a split, or goes on where a stopped call was.

  Args:
    config: `config.data`, whose source is the one to read.
    split: 'train' or 'test'.
    out: Path of the folder that gets the set.
    images_per_file: Largest number of images in a file.

  Returns:
    Path of the set's folder.

  Raises:
    ConfigError: A field has a value that cannot be used.
    DataError: The source cannot be read; the folder holds images of another
      source, or another process is writing into it.
  """
  config = config.copy_and_resolve_references()
  config.cache_gib = 0.0  # Every image is read once.
  source = sources.open_source(config, split)
  folder = os.path.join(
    os.path.expanduser(out), prepared.set_name(config, split)
  )
  os.makedirs(folder, exist_ok=True)
  with _alone(folder):
    record = _begin(folder, source, config, split)
    _write(folder, record, source, images_per_file)
  return folder


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
  """Keeps other processes of this host from writing into a folder."""
  with open(os.path.join(folder, "lock"), "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise DataError(
        f"{folder}: another process prepares this set. Wait until it is done."
      ) from error
    yield


def _begin(
  folder: str, source: Source, config: ml_collections.ConfigDict, split: str
) -> dict[str, Any]:
  """Returns the record of a set, and writes its labels if it is a new one."""
  classes = sources.classes(config, split)
  numbers, names = (np.empty(0), []) if classes is None else classes
  labels = os.path.join(folder, prepared.LABELS)
  files.write_atomic(labels, np.asarray(numbers, "<i4").tobytes())
  new = {
    "source": config.source,
    "decoder": decode.decoder(config),
    "num_images": source.num_images,
    "classes": names,
    "labels_sha256": files.sha256(labels),
  }
  old = prepared.read_record(folder)
  if old is None:
    return {**new, "files": []}
  for name in _SETTINGS:
    if old[name] != new[name]:
      raise DataError(
        f"{folder} was prepared with another {name}: expected "
        f"{_short(new[name])}, found {_short(old[name])}. Name another folder, "
        "or delete this one."
      )
  return old


def _short(value: Any) -> str:
  """Returns a value for a message."""
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:77]}..."


def _write(
  folder: str, record: dict[str, Any], source: Source, images_per_file: int
) -> None:
  """Writes the files of a set that are missing or damaged."""
  kept = {
    i: x for i, x in enumerate(record["files"]) if _is_whole(folder, i, x)
  }
  # The sizes of the files that are there hold, so that all fit together.
  sizes = [x["num_images"] for x in record["files"]]
  while (rest := source.num_images - sum(sizes)) > 0:
    sizes.append(min(rest, images_per_file))
  first = list(itertools.accumulate(sizes, initial=0))
  missing = [i for i in range(len(sizes)) if i not in kept]
  if not missing:
    print(f"{folder}: {source.num_images:,} images, all files are whole.")
    return
  if record["files"]:
    print(f"{folder}: {len(kept)} of {len(sizes)} files are there.")
  wanted = (k for i in missing for k in range(first[i], first[i + 1]))
  images = iter(
    tqdm.tqdm(
      source.read(wanted),
      os.path.basename(folder),
      sum(sizes[i] for i in missing),
      unit="image",
    )
  )
  for i in missing:
    part = itertools.islice(images, sizes[i])
    entry = _write_file(prepared.file_path(folder, i), part)
    record["files"][i : i + 1] = [entry]
    files.write_json(os.path.join(folder, prepared.RECORD), record, indent=1)
  if skipped := source.skipped():
    print(skipped, file=sys.stderr)
  print(f"{folder}: {source.num_images:,} images.")


def _is_whole(folder: str, number: int, entry: dict[str, Any]) -> bool:
  """Says whether a file is the one that was written."""
  path = prepared.file_path(folder, number)
  if not os.path.isfile(path) or os.path.getsize(path) != entry["num_bytes"]:
    return False
  return files.sha256(path) == entry["sha256"]


def _write_file(path: str, images: Iterator[np.ndarray]) -> dict[str, Any]:
  """Writes a file of images whole or not at all; returns its entry."""
  partial = f"{path}.partial"
  writer = prepared.array_record().ArrayRecordWriter(partial, _WRITER_OPTIONS)
  num_images = 0
  try:
    for image in images:
      writer.write(prepared.HEADER.pack(*image.shape) + image.tobytes())
      num_images += 1
  finally:
    writer.close()
  with open(partial, "rb") as file:
    os.fsync(file.fileno())
  entry = {
    "num_images": num_images,
    "num_bytes": os.path.getsize(partial),
    "sha256": files.sha256(partial),
  }
  os.replace(partial, path)
  return entry


def main(argv: list[str]) -> int:
  """Prepares the splits of a source; returns the exit status."""
  if len(argv) != 3:
    raise app.UsageError("Give two arguments: SOURCE OUT.")
  logging.set_verbosity(logging.WARNING)
  config, (_, source, out) = flags.FLAGS["config"].value, argv
  try:
    config = config.copy_and_resolve_references()
    config.data.source = source
    config_lib.check(config)
    prepare(config.data, "train", out)
    try:
      sources.open_native(config.data, "test")
    except DataError as error:
      print(f"Only the split train was prepared. {error}", file=sys.stderr)
      return 0
    prepare(config.data, "test", out)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("Interrupted. The same command goes on.", file=sys.stderr)
    return 130
  return 0


def run() -> None:
  """Runs the command."""
  config_flag.define(
    "This is the config whose images are prepared: the fields of its group "
    "`data` say how."
  )
  config_flag.run(main, default="imagenet128")


if __name__ == "__main__":
  run()
