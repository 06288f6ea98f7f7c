"""Local copies of prepared images in a bucket.

A batch has images from places all over a set, and a request for each would be
slow. So the files are copied into a local folder once. Each is compared with
its SHA-256, and then gets the JSON file that it has in the bucket. A later
start, or another process of the same host, therefore copies what is missing.
"""

import concurrent.futures
import fcntl
import os
import shutil

import tqdm
from etils import epath

from hatebm_jax.data import prepared_set
from hatebm_jax.data.base import DataError
from hatebm_jax.run import buckets, files

_DEFAULT = "~/.cache/hatebm_jax"
_NUM_THREADS = 8  # files that are copied at the same time


def to_copy(found: prepared_set.Set, cache_dir: str) -> int:
  """Returns how many bytes of a set have no local copy yet.

  Args:
    found: Set in a bucket.
    cache_dir: Path of the folder of all copies; '' means the default one.

  Raises:
    DataError: There is no room for them.
  """
  folder = _place(found, cache_dir)
  return _bytes(found, _missing(found, folder), folder)


def copy(found: prepared_set.Set, cache_dir: str) -> epath.Path:
  """Copies the files of a set that have no local copy yet.

  Args:
    found: Set in a bucket.
    cache_dir: Path of the folder of all copies; '' means the default one.

  Returns:
    Path of the local folder.

  Raises:
    DataError: There is no room, or a file is not what was written.
    OSError: The bucket or the disk fails.
  """
  folder = _place(found, cache_dir)
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / "lock", "w") as lock:
    # Other processes of this host wait here until the copy is whole.
    fcntl.flock(lock, fcntl.LOCK_EX)
    missing = _missing(found, folder)
    if missing:
      _copy_all(found, folder, missing)
  return folder


def _place(found: prepared_set.Set, cache_dir: str) -> epath.Path:
  """Returns the path of the copy of a set."""
  top = files.as_path(cache_dir or _DEFAULT)
  if buckets.is_bucket(top):
    raise DataError(
      f"config.data.cache_dir: expected a local folder, found {top}. Name one "
      "that has room for the images."
    )
  return top / str(found.folder).replace("://", "/", 1)


def _missing(found: prepared_set.Set, folder: epath.Path) -> list[int]:
  """Returns the numbers of the files that have no copy."""
  sizes = prepared_set.sizes(folder)

  def is_copied(number, entry):
    return (
      sizes.get(prepared_set.file_path(folder, number).name)
      == entry["num_bytes"]
      and prepared_set.entry_path(folder, number).name in sizes
      and prepared_set.read_entry(folder, number) == entry
    )

  return [i for i, x in enumerate(found.entries) if not is_copied(i, x)]


def _bytes(
  found: prepared_set.Set, missing: list[int], folder: epath.Path
) -> int:
  """Returns the bytes of some files after checking that they have room."""
  needed = sum(found.entries[i]["num_bytes"] for i in missing)
  there = next(x for x in (folder, *folder.parents) if x.exists())
  free = shutil.disk_usage(there).free
  if needed > free:
    raise DataError(
      f"{found.folder}: its images are copied into {folder} before they are "
      f"read. Expected room for {needed / 1e9:,.1f} GB more, found "
      f"{free / 1e9:,.1f} GB. Make room, or name another local folder: "
      "--config.data.cache_dir=FOLDER"
    )
  return needed


def _copy_all(
  found: prepared_set.Set, folder: epath.Path, missing: list[int]
) -> None:
  """Copies files, and shows how many bytes are there."""
  bar = tqdm.tqdm(
    desc=f"copying {found.folder}",
    total=_bytes(found, missing, folder),
    unit="B",
    unit_scale=True,
  )
  pool = concurrent.futures.ThreadPoolExecutor(_NUM_THREADS, "bucket_copy")
  try:
    for num_bytes in pool.map(lambda i: _copy_one(found, folder, i), missing):
      bar.update(num_bytes)
  finally:
    pool.shutdown(cancel_futures=True)
    bar.close()


def _copy_one(found: prepared_set.Set, folder: epath.Path, number: int) -> int:
  """Copies a file whole or not at all; returns its bytes."""
  entry, path = found.entries[number], prepared_set.file_path(folder, number)
  stored = found.folder / path.name
  partial = f"{path}.partial"
  buckets.download(stored, partial)
  if (sha256 := files.sha256(partial)) != entry["sha256"]:
    os.unlink(partial)
    raise DataError(
      f"{stored} is damaged: expected the SHA-256 {entry['sha256']}, found "
      f"{sha256}. Delete this file and give the command again that prepared "
      "the images: it makes the file again."
    )
  os.replace(partial, path)
  files.write_json(prepared_set.entry_path(folder, number), entry)
  return entry["num_bytes"]
