"""Knows CelebA in a folder of images, and its official splits.

The images 000001 to 162770 are the split train, those up to 182637 valid, and
those up to 202599 test. The file list_eval_partition.txt, which comes with the
images, says so too. Published figures are of the split train; a folder has all
images.
"""

import os
import re
from collections.abc import Sequence

from hatebm_jax.data import file_tree
from hatebm_jax.data.base import DataError
from hatebm_jax.data.notice import say

SPLITS = ("train", "valid", "test")
# Numbers of the last image of each split.
_LAST = (162_770, 182_637, 202_599)
_FILES = ("list_eval_partition.txt", "list_eval_partition.csv")
# Lines of the two files are `000001.jpg 0` and `000001.jpg,0`.
_LINE = re.compile(r"([\w-]+)\.\w+[ \t]*[ \t,][ \t]*([012])\s*")
_HEADER = "image_id,partition"
_MAX_BYTES = 2**26  # The published file has 3 MB.


def title(root: str, split: str) -> str:
  """Returns the name of a split of CelebA in a folder."""
  return f"folder:{root}, CelebA {split}"


def is_train(name: str | None) -> bool:
  """Returns whether the name of a source is that of CelebA's split train."""
  return bool(name) and name.endswith(", CelebA train")


def may_be_in(root: str) -> bool:
  """Returns whether a folder could hold CelebA; no folder is read for it."""
  if partition_file(root):
    return True
  _, folders, _ = next(file_tree.walk(root), ("", [], []))
  names = "", *folders, "img_align_celeba/img_align_celeba"
  return any(
    file_tree.is_file(os.path.join(root, name, f"000001.{ending}"))
    for name in names
    for ending in ("jpg", "png")
    if not name.startswith(".")
  )


def partition_file(root: str) -> str | None:
  """Returns the path of the file of the splits, in a folder or beside it."""
  beside = os.path.dirname(file_tree.absolute(root))
  paths = (os.path.join(x, name) for x in (root, beside) for name in _FILES)
  return next(filter(file_tree.is_file, paths), None)


def choose(
  root: str, paths: Sequence[str], split: str, wanted: str
) -> list[str] | None:
  """Returns the images of a split of CelebA, and says so on stderr.

  Args:
    root: Path of the folder that the user gave.
    paths: Paths of all images below it.
    split: 'train' or 'test'.
    wanted: One of `SPLITS`, or '' for that with the name `split`.

  Returns:
    Paths of the split's images in the same order, or None if these images are
    not CelebA.

  Raises:
    DataError: The file of the splits has something else, or there is more than
      one folder of CelebA's images, or there are no images of the split.
  """
  name = wanted or split
  numbers = [os.path.splitext(os.path.basename(path))[0] for path in paths]
  file = partition_file(root)
  partition = _read(file) if file else _by_number(numbers)
  if not partition.keys() & set(numbers):
    return None
  _check_one_folder(root, numbers)
  wanted_part = SPLITS.index(name)
  chosen = [
    path
    for path, number in zip(paths, numbers, strict=True)
    if partition.get(number) == wanted_part
  ]
  if not chosen:
    raise DataError(
      f"folder:{root!r}: expected images of CelebA's split {name!r}, found "
      f"none among {len(paths):,} images. Give the folder of all images: "
      "--config.data.source=folder:PATH"
    )
  source = f"{file!r} says" if file else "their numbers say"
  say(
    f"folder:{root!r} holds CelebA: {len(chosen):,} of {len(paths):,} images "
    f"are its split {name!r}, as {source}. "
    f"--config.data.{split}_split=. takes all images."
  )
  return chosen


def _by_number(numbers: Sequence[str]) -> dict[str, int]:
  """Returns the partition of the whole set; empty if these are other images."""
  if set(numbers) != {f"{i:06d}" for i in range(1, _LAST[-1] + 1)}:
    return {}
  return {x: sum(int(x) > last for last in _LAST) for x in numbers}


def _check_one_folder(root: str, numbers: Sequence[str]) -> None:
  """Refuses images that are there twice, such as aligned and in the wild."""
  if len(set(numbers)) < len(numbers):
    raise DataError(
      f"folder:{root!r}: expected each image of CelebA once, found "
      f"{len(numbers):,} images with {len(set(numbers)):,} names. Name the "
      "folder of the aligned images: "
      "--config.data.source=folder:PATH/img_align_celeba"
    )


def _read(file: str) -> dict[str, int]:
  """Reads the file of the splits.

  Returns:
    The index in `SPLITS` by the name of an image without its extension.

  Raises:
    DataError: The file has something else.
  """
  expected = f"{file!r}: expected lines such as '000001.jpg 0'"
  advice = "Take the file that comes with CelebA, or move this file away."
  if file_tree.size(file) > _MAX_BYTES:
    raise DataError(f"{expected}, found a file of over 64 MiB. {advice}")
  text = file_tree.read(file).decode("utf-8-sig", errors="replace")
  content = text.splitlines()
  if content and content[0].strip() == _HEADER:
    content = content[1:]
  partition = {}
  for line in filter(str.strip, content):
    found = _LINE.fullmatch(line)
    if not found:
      raise DataError(f"{expected}, found {line[:80]!r}. {advice}")
    partition[found[1]] = int(found[2])
  return partition
