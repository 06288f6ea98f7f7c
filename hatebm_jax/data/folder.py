"""The source `folder:PATH`: a tree of image files."""

import collections
import errno
import functools
import itertools
import os
import shlex
import stat
import sys
import threading
from collections.abc import Iterator

import ml_collections

from hatebm_jax.data import decode
from hatebm_jax.data.base import SPLITS, DataError, Source, pick_split
from hatebm_jax.data.decode import BadImageError, Reason

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

_MAX_BYTES = 2**30
# A folder may have this many unusable images, or this share of all images if
# that is more.
_MAX_BAD, _MAX_BAD_SHARE = 10, 0.1
# This many unusable images are named. At each of the milestones a line says how
# many there are so far.
_NAMED = 10
_MILESTONES = tuple(10**i for i in range(1, 10))

_REASONS = {
  errno.ENOENT: Reason.MISSING,
  errno.ELOOP: Reason.MISSING,
  errno.EACCES: Reason.NO_PERMISSION,
  errno.EPERM: Reason.NO_PERMISSION,
}


def open_folder(
  path: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a tree of image files.

  The next usable image takes the place of an image that cannot be used, so
  that `num_images` stays the number of files.

  Args:
    path: Path of the folder.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source. It reads a file when the image is needed.

  Raises:
    DataError: The folder or its split does not exist, or has no images.
  """
  root = _split_folder(os.path.expanduser(path), split)
  paths = _image_paths(root)
  # A name may contain bytes that are not text and cannot be printed.
  name = f"folder:{root if root.isprintable() else repr(root)}"
  skipped = _Skipped(name, len(paths))

  def decode_usable(index):
    for i in itertools.chain(range(index, len(paths)), range(index)):
      if i not in skipped:
        try:
          return decode.decode(_read_file(paths[i]), config, upright=True)
        except BadImageError as error:
          skipped.add(i, paths[i], error.reason)
    raise skipped.too_many()

  read = functools.partial(decode.map_decode, decode_usable)
  return Source(
    name, len(paths), config.image_size, read, skipped=skipped.summary
  )


def _split_folder(root: str, split: str) -> str:
  """Returns the folder that holds the images of a split."""
  if not os.path.isdir(root):
    raise DataError(
      f"config.data.source: expected a folder of images, found no folder "
      f"{root!r}. Give a folder that exists: --config.data.source=folder:PATH"
    )
  if not os.path.isdir(os.path.join(root, "train")):
    if split == "train":
      return root
  elif name := pick_split(split, next(os.walk(root), ("", []))[1]):
    return os.path.join(root, name)
  train, test = (
    shlex.quote(os.path.join(root, name)) for name in ("train", split)
  )
  raise DataError(
    f"{root!r} has no {split} images: expected in it a folder train and one of "
    f"the folders {', '.join(SPLITS[split])}. Make the folders and move images "
    f"into them: mkdir -p {train} {test}"
  )


def _image_paths(root: str) -> list[str]:
  """Returns the paths of all image files below a folder, ordered by name."""
  files = list(_walk(root))
  paths = [file for file in files if file.lower().endswith(EXTENSIONS)]
  if not paths:
    found = sorted({os.path.splitext(file)[1] or file for file in files})
    raise DataError(
      f"No images in {root!r}: expected files with the extensions "
      f"{' '.join(EXTENSIONS)}; found {len(files)} other files "
      f"({' '.join(found[:8]) or 'the folder is empty'}). Give the folder that "
      "holds the images: --config.data.source=folder:PATH"
    )
  return paths


def _walk(root: str) -> Iterator[str]:
  """Yields all files below a folder by name, and each real folder once.

  Raises:
    DataError: The file system fails.
  """

  def skip(error):
    reason = _reason(error.filename, error)
    print(f"Skipping the folder {error.filename!r}: {reason}", file=sys.stderr)

  seen = set()
  for folder, folders, files in os.walk(root, onerror=skip, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:  # The walk would never end if a link leads back up.
      folders.clear()
      continue
    seen.add(real)
    # File managers and notebooks leave files with names that start with a dot.
    folders[:] = sorted(name for name in folders if name[0] != ".")
    for name in sorted(files):
      if name[0] != ".":
        yield os.path.join(folder, name)


def _read_file(path: str) -> bytes:
  """Reads an image file whole, so that later errors are Pillow's alone.

  Raises:
    BadImageError: The file cannot be an image, or may not be read.
    DataError: The file system fails.
  """
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # Opening a pipe could wait forever.
      raise BadImageError(Reason.NOT_REGULAR)
    if status.st_size > _MAX_BYTES:
      raise BadImageError(Reason.LARGE_FILE)
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise BadImageError(_reason(path, error)) from error


def _reason(path: str, error: OSError) -> Reason:
  """Returns why a path cannot be used.

  Raises:
    DataError: The file system fails.
  """
  if error.errno in _REASONS:
    return _REASONS[error.errno]
  raise DataError(
    f"Cannot read {path!r}: the file system says {error.strerror!r}. Check the "
    "disk, or the connection to it, and start the same command again."
  ) from error


class _Skipped:
  """Counts the images of a folder that cannot be used.

  Several threads may share one instance.
  """

  def __init__(self, name: str, num_images: int):
    self._name, self._num_images = name, num_images
    allowed = max(_MAX_BAD, int(_MAX_BAD_SHARE * num_images))
    self._allowed = min(allowed, num_images - 1)
    self._reasons: dict[int, Reason] = {}
    self._lock = threading.Lock()

  def __contains__(self, index: int) -> bool:
    return index in self._reasons

  def add(self, index: int, path: str, reason: Reason) -> None:
    """Counts an image once and names it on stderr.

    Raises:
      DataError: The folder has too many images that cannot be used.
    """
    with self._lock:
      if index in self._reasons:
        return
      self._reasons[index] = reason
      count = len(self._reasons)
      if count <= _NAMED:
        print(f"Skipping {path!r}: {reason}", file=sys.stderr)
      if count in _MILESTONES:
        print(self.summary(), file=sys.stderr)
      if count > self._allowed:
        raise self.too_many()

  def summary(self) -> str:
    """Returns how many images were skipped and why, or '' if none was."""
    if not self._reasons:
      return ""
    return (
      f"{self._name}: {len(self._reasons):,} of {self._num_images:,} images "
      f"skipped: {self._counts()}"
    )

  def too_many(self) -> DataError:
    """Returns the error that ends reading."""
    return DataError(
      f"{self._name}: expected at most {self._allowed:,} images that cannot be "
      f"used, found {len(self._reasons):,} of {self._num_images:,}: "
      f"{self._counts()}. The first of them are named above. Repair or delete "
      "them, or give another folder: --config.data.source=folder:PATH"
    )

  def _counts(self) -> str:
    # `sorted` copies at once, while other threads may add an image.
    counts = collections.Counter(sorted(self._reasons.values()))
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common())
