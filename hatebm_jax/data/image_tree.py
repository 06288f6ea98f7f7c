"""Finds the image files of a folder: its splits, its classes, and runs in it.

A folder may hold splits (`train`, `test`) or classes, one of which may be
called `train` too. It may also hold workdirs, whose pictures are no training
data. What is decided is printed on stderr wherever a user could expect
something else.
"""

import collections
import errno
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from hatebm_jax.data import file_tree
from hatebm_jax.data.base import SPLITS, DataError, pick_split
from hatebm_jax.data.decode import Reason
from hatebm_jax.data.notice import say

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif")
# Files with these extensions are images too, which are not read.
_OTHER_IMAGES = (
  *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga"),
  *(".ppm", ".pgm", ".exr", ".dcm", ".ico", ".svg"),
)

_SPLIT_NAMES = tuple(itertools.chain(*SPLITS.values()))
# Names such as Test, test2017, val_images and test-set.
_LIKE_TEST = re.compile(rf"({'|'.join(SPLITS['test'])})([\W_\d].*)?", re.I)
# The config of a run has these groups, and more.
_RUN_FILE, _RUN_GROUPS = "config.json", {"data", "langevin", "train"}
# Sampling and evaluation write such files, into any folder.
_SAMPLES = re.compile(r"\d{8}_(\d+_)?(raw|averaged)\.npz")
_EVALUATION = "evaluation.json"
_MAX_RUN_FILE = 2**20  # bytes; the config of a run has a few thousand
_SHOWN = 3  # folders that a message names

_REASONS = {
  errno.ENOENT: Reason.MISSING,
  errno.ELOOP: Reason.MISSING,
  errno.EACCES: Reason.NO_PERMISSION,
  errno.EPERM: Reason.NO_PERMISSION,
}


def split_folder(root: str, split: str, wanted: str = "") -> str:
  """Returns the folder that holds the images of a split.

  Args:
    root: Path of the folder that the user gave.
    split: 'train' or 'test'.
    wanted: Path of the split's folder below `root`, if the user gave one. ''
      looks for a folder with one of the names of a split.

  Raises:
    DataError: The folder does not exist, is a workdir, or has no such split.
  """
  if not file_tree.is_dir(root):
    raise DataError(
      f"config.data.source: expected a folder of images, found no folder "
      f"{root!r}. Give a folder that exists: --config.data.source=folder:PATH"
    )
  if is_run(root):
    raise DataError(
      f"config.data.source: expected a folder of images, found the workdir of "
      f"a run in {root!r}: its own pictures would be among the images. Move "
      "the images into a folder of their own: --config.data.source=folder:PATH"
    )
  if wanted:
    return _wanted_folder(root, split, wanted)
  names = _folders(root)
  train, test = (pick_split(each, names) for each in ("train", "test"))
  if train and not test and _is_class(root, train, names):
    train = None
  elif train:
    _tell_unused(root, train, names)
  chosen = train if split == "train" else test
  if chosen and train:
    return os.path.join(root, chosen)
  if split == "train":
    return root
  raise _no_test_images(root)


def has_no_splits(root: str, wanted: str, names: Sequence[str]) -> bool:
  """Returns whether a folder leaves its splits to something else than folders.

  Args:
    root: Path of the folder.
    wanted: Name that the user gave for a split, or ''.
    names: Names of splits that need no folder.

  Returns:
    True if the folder exists, is no workdir and has no folder `train`, and
    `wanted` is empty or one of `names` without a folder of this name.
  """
  if not file_tree.is_dir(root) or is_run(root):
    return False
  folders = _folders(root)
  if pick_split("train", folders) or wanted in folders:
    return False
  return not wanted or wanted in names


def image_paths(root: str) -> list[str]:
  """Returns the paths of all image files below a folder, ordered by name.

  Args:
    root: Path of the folder.

  Raises:
    DataError: There are none, or the file system fails.
  """
  runs = []
  files = list(_walk(root, runs, named=root))
  if runs:
    say(f"folder:{root!r}: skipping what runs wrote: {_some(runs)}")
  paths = [file for file in files if _is_image(file)]
  if not paths:
    found = sorted({os.path.splitext(file)[1] or file for file in files})
    raise DataError(
      f"No images in {root!r}: expected files with the extensions "
      f"{' '.join(EXTENSIONS)}; found {len(files)} other files "
      f"({' '.join(found[:8]) or 'the folder is empty'}). Give the folder that "
      "holds the images: --config.data.source=folder:PATH"
    )
  _tell_other_images(root, files)
  return paths


def _tell_other_images(root: str, files: list[str]) -> None:
  """Says on stderr how many images of other formats are not read."""
  endings = (os.path.splitext(file)[1].lower() for file in files)
  counts = collections.Counter(x for x in endings if x in _OTHER_IMAGES)
  if counts:
    found = ", ".join(f"{count:,} {x}" for x, count in counts.most_common())
    say(
      f"folder:{root!r}: these images are not read: {found}. Convert them to "
      "PNG or JPEG to use them."
    )


def tell_test_images(root: str, paths: list[str]) -> None:
  """Says on stderr if folders of test images are among the training images.

  Args:
    root: Path of the folder whose images are all used.
    paths: Paths of the images.
  """
  below = {os.path.relpath(os.path.dirname(path), root) for path in paths}
  tests = set()
  for folder in below - {"."}:
    parts = folder.split(os.sep)
    found = (i for i, part in enumerate(parts) if _LIKE_TEST.fullmatch(part))
    if (i := next(found, None)) is not None:
      tests.add(os.path.join(*parts[: i + 1]))
  if tests:
    say(
      f"folder:{root!r}: the images in {_some(sorted(tests))} are training "
      "images too, because no folder train lies beside them at the top. If "
      "they are test images, name the folder of the training images: "
      "--config.data.train_split=FOLDER"
    )


def is_run(folder: str) -> bool:
  """Returns whether a folder is the workdir of a run, or a released one."""
  path = os.path.join(folder, _RUN_FILE)
  try:
    if not 0 < file_tree.size(path) <= _MAX_RUN_FILE:
      return False
    content = json.loads(file_tree.read(path))
  except (OSError, RecursionError, ValueError):
    return False
  return isinstance(content, dict) and content.keys() >= _RUN_GROUPS


def _wanted_folder(root: str, split: str, wanted: str) -> str:
  """Returns the folder of a split that the user named."""
  folder = file_tree.below(root, wanted)
  if file_tree.is_dir(folder):
    return folder
  raise DataError(
    f"config.data.{split}_split={wanted!r}: expected a folder below {root!r}, "
    f"found {_some(_folders(root)) or 'no folders'}. Name one of them: "
    f"--config.data.{split}_split=FOLDER"
  )


def _folders(root: str) -> list[str]:
  """Returns the names of the folders in a folder, without hidden ones."""
  names = next(file_tree.walk(root), ("", [], []))[1]
  return sorted(name for name in names if name[0] != ".")


def _others(root: str, names: list[str]) -> list[str]:
  """Returns the folders that hold images and have no name of a split."""
  return [
    name
    for name in names
    if name.lower() not in _SPLIT_NAMES
    and any(map(_is_image, _walk(os.path.join(root, name))))
  ]


def _is_class(root: str, train: str, names: list[str]) -> bool:
  """Says whether the folder `train` is a class among other classes.

  It is one if other folders with images lie beside it, and none of them has
  the name of a test split.
  """
  others = _others(root, names)
  if others:
    say(
      f"folder:{root!r}: {train!r} is taken for a class, because "
      f"{_some(others)} lie beside it and there is no folder test. All images "
      "are used. If it holds the training images, give "
      f"--config.data.train_split={shlex.quote(train)}"
    )
  return bool(others)


def _tell_unused(root: str, train: str, names: list[str]) -> None:
  """Says on stderr which images lie beside the folders of the splits."""
  unused = _others(root, names)
  _, folders, files = next(file_tree.walk(root), ("", [], []))
  if any(_is_image(x) and x[0] != "." for x in (*folders, *files)):
    unused.append(".")
  if unused:
    say(
      f"folder:{root!r}: the images in {_some(unused)} are not used, because "
      f"{train!r} is taken for the folder of the training images. To train on "
      "all images, give --config.data.train_split=."
    )


def _no_test_images(root: str) -> DataError:
  train, test = (shlex.quote(os.path.join(root, x)) for x in ("train", "test"))
  return DataError(
    f"{root!r} has no test images: expected in it a folder train and one of "
    f"the folders {', '.join(SPLITS['test'])}. Make the folders and move "
    f"images into them: mkdir -p {train} {test}. Or name the folder that holds "
    "the test images: --config.data.test_split=FOLDER"
  )


def _some(names: list[str]) -> str:
  """Returns the first names of a list for a message, and the number of rest."""
  shown = ", ".join(map(repr, names[:_SHOWN]))
  rest = len(names) - _SHOWN
  return f"{shown} and {rest:,} more" if rest > 0 else shown


def _walk(
  root: str, runs: list[str] | None = None, named: str = ""
) -> Iterator[str]:
  """Yields all files below a folder by name, and each real folder once.

  Args:
    root: Path of the folder.
    runs: List that gets the workdirs and the folders of samples below the
      folder. They are not entered.
    named: Path of the folder that the user named. It is entered in any case.

  Raises:
    DataError: The file system fails.
  """

  def skip(error):
    reason = reason_of(error.filename, error)
    say(f"Skipping the folder {error.filename!r}: {reason}")

  seen = set()
  for folder, folders, files in file_tree.walk(root, onerror=skip):
    real = file_tree.real(folder)
    if real in seen:  # The walk would never end if a link leads back up.
      folders.clear()
      continue
    seen.add(real)
    if folder != named and _holds_own_pictures(folder, files):
      folders.clear()
      if runs is not None:
        runs.append(folder)
      continue
    if _EVALUATION in files:
      files = [name for name in files if not name.startswith("evaluation_")]
    # File managers and notebooks leave files with names that start with a dot.
    folders[:] = sorted(name for name in folders if name[0] != ".")
    for name in sorted(files):
      if name[0] != ".":
        yield os.path.join(folder, name)


def _holds_own_pictures(folder: str, files: list[str]) -> bool:
  """Says whether a folder is a workdir, or a folder of samples of a run."""
  return is_run(folder) or any(map(_SAMPLES.fullmatch, files))


def reason_of(path: str, error: OSError) -> Reason:
  """Returns why a path cannot be used.

  Args:
    path: Path of the file or folder.
    error: Error of the operating system.

  Raises:
    DataError: The file system fails.
  """
  if error.errno in _REASONS:
    return _REASONS[error.errno]
  raise DataError(
    f"Cannot read {path!r}: the file system says "
    f"{error.strerror or str(error)!r}. Check the disk, or the "
    "connection to it, and start the same command again."
  ) from error


def _is_image(path: str) -> bool:
  return path.lower().endswith(EXTENSIONS)
