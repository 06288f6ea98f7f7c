"""Files of drawn images, each with a record of what drew them.

The first file of a training step and of its weights is STEP_WEIGHTS.npz. Images
of other settings are written beside it, as STEP_2_WEIGHTS.npz and so on, so
that no image is replaced by another one. Image i depends only on what the
record says and on i. A file with more images of the same record may therefore
take the place of a file with fewer.
"""

import itertools
import json
import re
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from hatebm_jax.run import files, npz

FOLDER = "samples"
_RECORD = "record"
_NAME = re.compile(r"(\d{8,})_(?:(\d+)_)?(raw|averaged)")


class Name(NamedTuple):
  """What the name of a file of images says.

  Attributes:
    step: Training step of the weights.
    weights: Kind of the weights, `raw` or `averaged`.
    number: Number of the settings, counted from 1.
  """

  step: int
  weights: str
  number: int = 1

  def stem(self) -> str:
    """Returns the name without the extension."""
    number = f"{self.number}_" if self.number > 1 else ""
    return f"{self.step:08d}_{number}{self.weights}"


class Place(NamedTuple):
  """File for the images of a record.

  Attributes:
    path: Path of the file.
    num_images: Number of images that it holds; 0 if it does not exist.
    others: Files with images of the same weights and of other settings.
  """

  path: epath.Path
  num_images: int
  others: list[epath.Path]


def parse(stem: str) -> tuple[Name, str] | None:
  """Reads the name of a file of images, or of a picture of them.

  Args:
    stem: Name of the file without the extension.

  Returns:
    The name, and what follows it, such as `_grid`. None for other files.
  """
  match = _NAME.match(stem)
  if not match:
    return None
  name = Name(int(match[1]), match[3], int(match[2] or 1))
  return name, stem[match.end() :]


def find(
  folder: epath.PathLike,
  step: int,
  weights: str,
  record: dict[str, Any],
  images: np.ndarray | None = None,
) -> Place:
  """Returns the file that holds the images of a record, or shall hold them.

  Args:
    folder: Path of the folder with the files.
    step: Training step of the weights.
    weights: Kind of the weights, `raw` or `averaged`.
    record: Record of what draws the images.
    images: Images of the record, uint8 `[n, height, width, channels]`. A file
      without a record, of an older version, is known by its images.
  """
  found, taken = {}, set()
  for path in files.entries(folder):
    # A folder of PNGs takes a name too, or new PNGs would be mixed with old.
    parsed = parse(path.stem) if path.suffix in (".npz", "") else None
    if parsed and parsed[0][:2] == (step, weights) and not parsed[1]:
      taken.add(parsed[0].number)
      if path.suffix:
        found[parsed[0].number] = path
  for path in found.values():
    if num_images := _count(path, record, images):
      return Place(path, num_images, [])
  number = next(i for i in itertools.count(1) if i not in taken)
  name = Name(step, weights, number).stem()
  path = files.as_path(folder) / f"{name}.npz"
  return Place(path, 0, list(found.values()))


def _count(
  path: epath.Path, record: dict[str, Any], images: np.ndarray | None
) -> int:
  """Returns how many images of a record a file holds."""
  try:
    num_images = npz.headers(path)["images"].shape[0]
    found = read_record(path)
    if found is not None or images is None:
      return num_images if found == record else 0
    stored = npz.arrays(path, ["images"])["images"]
  # A file that cannot be read is left alone.
  except (IndexError, KeyError, npz.FileError):
    return 0
  shorter = min(len(stored), len(images))
  return num_images if np.array_equal(stored[:shorter], images[:shorter]) else 0


def save(
  path: epath.PathLike, record: dict[str, Any], **arrays: np.ndarray
) -> None:
  """Writes images and their record, whole or not at all.

  Args:
    path: Path of the file.
    record: Record of what drew the images, as JSON can hold it.
    **arrays: Arrays of images by name.
  """
  npz.save(path, record=np.array(json.dumps(record)), **arrays)


def read_record(path: epath.PathLike) -> dict[str, Any] | None:
  """Returns the record of a file, or None if it has none.

  Args:
    path: Path of the file.
  """
  try:
    found = json.loads(str(npz.arrays(path, [_RECORD])[_RECORD]))
  except (RecursionError, ValueError, npz.FileError):
    return None
  return found if isinstance(found, dict) else None
