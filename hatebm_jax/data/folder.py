"""The source `folder:PATH`: a tree of image files."""

import collections
import contextlib
import functools
import itertools
import os
import sys
import threading
from collections.abc import Iterator

import ml_collections
import numpy as np

from hatebm_jax.data import celeba, decode, file_tree, image_tree, levels
from hatebm_jax.data.base import DataError, Source
from hatebm_jax.data.decode import BadImageError, Reason

_MAX_BYTES = 2**30
# A run writes pictures into these folders of its workdir.
_RUN_FOLDERS = ("images", "samples")
# A folder may have this many unusable images, or this share of all images if
# that is more.
_MAX_BAD, _MAX_BAD_SHARE = 10, 0.1
# This many unusable images are named. At each of the milestones a line says how
# many there are so far.
_NAMED = 10
_MILESTONES = tuple(10**i for i in range(1, 10))


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
  name, paths = _images_of(file_tree.expand(path), config, split)
  skipped = _Skipped(name, len(paths))
  white = levels.white(name, _some_files(paths))

  def decode_usable(index):
    for i in itertools.chain(range(index, len(paths)), range(index)):
      if i not in skipped:
        try:
          return decode.decode(_read_file(paths[i]), config, white, True)
        except BadImageError as error:
          skipped.add(i, paths[i], error.reason)
    raise skipped.too_many()

  read = functools.partial(decode.map_decode, decode_usable)
  return Source(
    name, len(paths), config.image_size, read, skipped=skipped.summary
  )


def classes(
  path: str, config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, list[str]] | None:
  """Returns the class of each image of a tree of image files.

  A class is a folder in the lowest folder that holds all images of the split.

  Args:
    path: Path of the folder.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    Integers `[num_images]` and the names of the classes; None if all images lie
    in one folder.

  Raises:
    DataError: The folder or its split does not exist, or has no images.
  """
  _, paths = _images_of(file_tree.expand(path), config, split)
  folders = [os.path.dirname(x) for x in paths]
  top = os.path.commonpath(folders)
  of_image = [os.path.relpath(x, top).split(os.sep)[0] for x in folders]
  names, numbers = np.unique(of_image, return_inverse=True)
  if len(names) == 1:
    return None
  return numbers, [os.fsencode(x).decode(errors="replace") for x in names]


def _images_of(
  top: str, config: ml_collections.ConfigDict, split: str
) -> tuple[str, list[str]]:
  """Returns the name of a split of a folder, and the paths of its images."""
  # A name may contain bytes that are not text and cannot be printed.
  printable = lambda x: x if x.isprintable() else repr(x)
  wanted = config[f"{split}_split"]
  if image_tree.has_no_splits(top, wanted, celeba.SPLITS) and celeba.may_be_in(
    top
  ):
    paths = image_tree.image_paths(top)
    if chosen := celeba.choose(top, paths, split, wanted):
      return celeba.title(printable(top), wanted or split), chosen
  root = image_tree.split_folder(top, split, wanted)
  paths = image_tree.image_paths(root)
  if split == "train" and root == top and not config.train_split:
    image_tree.tell_test_images(root, paths)
  return f"folder:{printable(root)}", paths


def _some_files(paths: list[str]) -> Iterator[bytes]:
  """Yields the content of a few files, evenly spaced, that can be read."""
  count = min(len(paths), levels.LOOKED_AT)
  for i in np.linspace(0, len(paths) - 1, count).astype(int):
    with contextlib.suppress(BadImageError, DataError):
      yield _read_file(paths[i])


def check_workdir(source: str, workdir: str) -> None:
  """Checks that a run does not write its pictures among its images.

  Workdirs below the folder of images are skipped when images are read. The
  folder itself cannot be a workdir, nor can it be a folder that a run writes.

  Args:
    source: Source of the images, `config.data.source`.
    workdir: Path of the workdir.

  Raises:
    DataError: The run would write among its images.
  """
  kind, _, path = source.partition(":")
  if kind != "folder" or not path:
    return
  root = file_tree.real(file_tree.expand(path))
  workdir = file_tree.real(workdir)
  own = [os.path.join(workdir, name) for name in _RUN_FOLDERS]
  if root == workdir or any(f"{root}/".startswith(f"{x}/") for x in own):
    raise DataError(
      f"--workdir={workdir}: the run would write its pictures into "
      f"{root!r}, the folder of its images. Give another folder, for example "
      f"--workdir={os.path.join(root, 'run')}"
    )


def _read_file(path: str) -> bytes:
  """Reads an image file whole, so that later errors are Pillow's alone.

  Raises:
    BadImageError: The file cannot be an image, or may not be read.
    DataError: The file system fails.
  """
  try:
    if not file_tree.is_regular(path):  # Opening a pipe could wait forever.
      raise BadImageError(Reason.NOT_REGULAR)
    if file_tree.size(path) > _MAX_BYTES:
      raise BadImageError(Reason.LARGE_FILE)
    return file_tree.read(path)
  except OSError as error:
    raise BadImageError(image_tree.reason_of(path, error)) from error


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
