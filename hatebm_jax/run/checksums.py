"""SHA-256 of the files of a checkpoint: whether they are what was written."""

import json
import os

from etils import epath

from hatebm_jax.run import files

ITEM = "default"  # Orbax gives this name to the one item of a checkpoint.
_FILE = "checksums.json"


def write(item: epath.Path) -> None:
  """Writes the checksums of all files that an item holds, into it.

  Args:
    item: Folder of the item, without checksums yet.
  """
  item = files.as_path(item)
  sums = {
    str(file.relative_to(item)): files.sha256(file)
    for file in files.all_files(item)
  }
  files.write_json(item / _FILE, sums, indent=1)


def damage(folder: epath.Path) -> str | None:
  """Reads the files of a checkpoint through.

  Args:
    folder: Folder of the checkpoint, which holds the item.

  Returns:
    What is broken, as a clause for a message; None if nothing is.
  """
  try:
    sums = json.loads((folder / ITEM / _FILE).read_text())
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
