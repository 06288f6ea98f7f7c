"""Checksums of a checkpoint's files: whether they are what was written.

Local files are read through and compared by SHA-256. A bucket computes a
checksum of each object when it is written. These are compared there, so that no
checkpoint is read back.
"""

import json
import os

from etils import epath

from hatebm_jax.run import buckets, files

ITEM = "default"  # Orbax gives this name to the one item of a checkpoint.
_FILE = "checksums.json"


def write(item: epath.Path) -> None:
  """Writes the checksums of all files that an item holds, into it.

  Args:
    item: Folder of the item, without checksums yet.
  """
  item = files.as_path(item)
  if buckets.is_bucket(item):
    sums = {name: list(x) for name, x in buckets.objects(item).items()}
  else:
    sums = {
      str(file.relative_to(item)): files.sha256(file)
      for file in files.all_files(item)
    }
  files.write_json(item / _FILE, sums, indent=1)


def damage(folder: epath.Path) -> str | None:
  """Reads the local files of a checkpoint through, or asks the bucket.

  Args:
    folder: Folder of the checkpoint, which holds the item.

  Returns:
    What is broken, as a clause for a message; None if nothing is.
  """
  try:
    sums = json.loads((folder / ITEM / _FILE).read_text())
    if buckets.is_bucket(folder):
      return _difference(sums, buckets.objects(folder / ITEM))
    for name, expected in sums.items():
      file = files.as_path(folder / ITEM / name)
      # etils takes a device for a file, which could be read forever.
      if not os.path.isfile(file):
        return f"{ITEM}/{name} is missing"
      if files.sha256(file) != expected:
        return f"{ITEM}/{name} is not what was written"
  except FileNotFoundError:
    empty = not any(folder.iterdir())
    return "it is empty" if empty else f"{ITEM}/{_FILE} is missing"
  except (AttributeError, OSError, RecursionError, ValueError) as error:
    return f"{ITEM}/{_FILE}: {error}"
  return None


def _difference(
  sums: dict[str, list], found: dict[str, buckets.Stored]
) -> str | None:
  """Says which object of a bucket is not what was written; None if all are."""
  for name, expected in sums.items():
    if name not in found:
      return f"{ITEM}/{name} is missing"
    if list(found[name]) != expected:
      return f"{ITEM}/{name} is not what was written"
  return None
