"""Where images come from: scikit-learn's digits and folders of image files.

`data_tfds.py` is the third kind of source. Every image is decoded by Pillow.
"""

import collections
import concurrent.futures
import enum
import errno
import functools
import io
import itertools
import os
import shlex
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hatebm_jax import errors, images

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# The names that a split goes by, the preferred one first.
SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
# An `image_size` that leaves images as large as they are.
NATIVE = 0
_DECODED_AHEAD = 128

# Those of EXTENSIONS alone: Pillow knows others, of which EPS starts another
# program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
_MAX_BYTES = 2**30
_MAX_PIXELS = 89_478_485  # Where Pillow starts to warn.
_MAX_ASPECT = 100
# Bad files of a folder: so many are named, so many or such a share it may have,
# and at these counts the reasons are summed up.
_NAMED = 10
_MAX_BAD, _MAX_BAD_SHARE = 10, 0.1
_MILESTONES = tuple(10**i for i in range(1, 10))

# `decode` refuses what Pillow would only warn of.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DataError(errors.UserError):
  """The data or its configuration is wrong; the message says how to mend it."""


class Reason(enum.StrEnum):
  """Why an image cannot be used."""

  MISSING = "missing"
  NO_PERMISSION = "no permission"
  NOT_REGULAR = "not a regular file"
  LARGE_FILE = "over 1 GiB"
  EMPTY = "empty"
  NO_IMAGE = "not an image"
  DAMAGED = "truncated or damaged"
  LARGE = "over 89 million pixels"
  NARROW = "sides over 100:1"


_REASONS = {
  errno.ENOENT: Reason.MISSING,
  errno.ELOOP: Reason.MISSING,
  errno.EACCES: Reason.NO_PERMISSION,
  errno.EPERM: Reason.NO_PERMISSION,
}


class BadImageError(ValueError):
  """One image cannot be used; the others can.

  Attributes:
    reason: why.
  """

  def __init__(self, reason: Reason):
    super().__init__(str(reason))
    self.reason = reason


class Source(NamedTuple):
  """A set of images in a fixed order.

  Attributes:
    name: what it is, for messages.
    num_images: how many images it has.
    image_size: height and width of a batch.
    read: increasing indices -> iterator of uint8 `[height, width, channels]`,
      no side smaller than `image_size`.
    stream: None where `read` is fast at any index. Otherwise
      (seed, start, process_index, process_count) -> endless iterator of this
      host's shuffled images, from its `start`-th on.
    skipped: says how many images were found unusable so far, and why; '' for
      none.
  """

  name: str
  num_images: int
  image_size: int
  read: Callable[[Iterable[int]], Iterator[np.ndarray]]
  stream: Callable[[int, int, int, int], Iterator[np.ndarray]] | None = None
  skipped: Callable[[], str] = lambda: ""

  def images(
    self, indices: Sequence[int], where: np.ndarray | None = None
  ) -> np.ndarray:
    """Reads images and cuts them square.

    Where `stream` is set this reads through the set up to the last index: ask
    for all that is needed in one call.

    Args:
      indices: `[n]` in [0, num_images), in any order, repeats allowed.
      where: as in `cut`; None: the centre.

    Returns:
      uint8 `[n, image_size, image_size, channels]`.

    Raises:
      DataError: an image cannot be read.
    """
    increasing, inverse = np.unique(indices, return_inverse=True)
    images = list(self.read(increasing))
    if where is None:
      where = np.full((len(inverse), 2), 0.5)
    return cut([images[i] for i in inverse], self.image_size, where)


def cut(
  images: Sequence[np.ndarray], size: int, where: np.ndarray
) -> np.ndarray:
  """Cuts a square out of every image.

  Args:
    images: `n` times uint8 `[height, width, channels]`.
    size: side of the squares.
    where: `[n, 2]` in [0, 1), from the top and from the left.

  Returns:
    uint8 `[n, size, size, channels]`.
  """
  squares = []
  for image, (y, x) in zip(images, where, strict=True):
    top = int(y * (image.shape[0] - size + 1))
    left = int(x * (image.shape[1] - size + 1))
    squares.append(image[top : top + size, left : left + size])
  return np.stack(squares)


def pick_split(split: str, available: Iterable[str]) -> str | None:
  """The name among those available that a split goes by, None without one."""
  return next((name for name in SPLITS[split] if name in available), None)


def _read_file(path: str) -> bytes:
  """Reads an image file whole: errors are then either the disk's or Pillow's.

  Raises:
    BadImageError: it cannot be an image, or may not be read.
    DataError: the file system fails.
  """
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # To open a FIFO would wait for ever.
      raise BadImageError(Reason.NOT_REGULAR)
    if status.st_size > _MAX_BYTES:
      raise BadImageError(Reason.LARGE_FILE)
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise BadImageError(_reason(path, error)) from error


def _reason(path: str, error: OSError) -> Reason:
  """Why a path cannot be used; raises DataError where the disk fails."""
  if error.errno in _REASONS:
    return _REASONS[error.errno]
  raise DataError(
    f"Cannot read {path!r}: the file system says {error.strerror!r}. Check the "
    "disk, or the connection to it, and start the same command again"
  ) from error


def decode(
  encoded: bytes, config: ml_collections.ConfigDict, upright: bool = False
) -> np.ndarray:
  """Decodes an image, the first one of an animation.

  Args:
    encoded: content of a JPEG, PNG, WebP, BMP or GIF file.
    config: `config.data`.
    upright: whether to follow the orientation that a camera noted.

  Returns:
    uint8 `[height, width, channels]`, the short side `image_size`; square for
    crop='center'.

  Raises:
    BadImageError: it cannot be used.
  """
  if not encoded:
    raise BadImageError(Reason.EMPTY)
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      _check_size(*image.size)
      if upright:
        image = ImageOps.exif_transpose(image)
      return fit(image, config)
  except (BadImageError, MemoryError):  # No memory: not the image's fault.
    raise
  except UnidentifiedImageError as error:
    raise BadImageError(Reason.NO_IMAGE) from error
  except Image.DecompressionBombError as error:
    raise BadImageError(Reason.LARGE) from error
  except Exception as error:  # Pillow raises OSError, SyntaxError and others.
    raise BadImageError(Reason.DAMAGED) from error


def _check_size(width: int, height: int) -> None:
  """Refuses sizes that would take too much memory, decoded or resized."""
  if width * height > _MAX_PIXELS:
    raise BadImageError(Reason.LARGE)
  if max(width, height) > _MAX_ASPECT * min(width, height):
    raise BadImageError(Reason.NARROW)


def fit(image: Image.Image, config: ml_collections.ConfigDict) -> np.ndarray:
  """Converts an image's channels; resizes its short side or centre square."""
  image = _convert(image, config.channels)
  width, height = image.size
  side = min(width, height)
  size = side if config.image_size == NATIVE else config.image_size
  if config.crop == "center":
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    width = height = side
  if side != size:
    shape = (round(width * size / side), round(height * size / side))
    image = image.resize(shape, Image.Resampling.BILINEAR)
  pixels = np.asarray(image)
  return pixels.reshape(*pixels.shape[:2], config.channels)


def resize(pixels: np.ndarray, image_size: int) -> np.ndarray:
  """Resizes images to squares, as a source resizes its images.

  Args:
    pixels: uint8 `[n, height, width, channels]`, 1 or 3 channels.
    image_size: Height and width of the result in pixels.

  Returns:
    uint8 `[n, image_size, image_size, channels]`.
  """
  config = ml_collections.ConfigDict(
    {"image_size": image_size, "crop": "center", "channels": pixels.shape[-1]}
  )
  return np.stack([fit(images.to_pillow(image), config) for image in pixels])


def _convert(image: Image.Image, channels: int) -> Image.Image:
  """Converts to gray or colour, transparent pixels over white."""
  if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip.
    deep, clear = np.asarray(image), image.info.get("transparency")
    image = Image.fromarray((deep // 257).astype(np.uint8))
    if clear is not None:
      image.putalpha(Image.fromarray(deep != clear).convert("L"))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return image.convert("L" if channels == 1 else "RGB")


def map_decode(
  decode_item: Callable[[Any], np.ndarray], items: Iterable[Any]
) -> Iterator[np.ndarray]:
  """Decodes items in order, in threads: Pillow frees the GIL."""
  pending = collections.deque()
  for item in items:
    pending.append(_decoders().submit(decode_item, item))
    if len(pending) > _DECODED_AHEAD:
      yield pending.popleft().result()
  for decoded in pending:
    yield decoded.result()


@functools.cache
def _decoders() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(thread_name_prefix="decode")


def open_digits(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens scikit-learn's digits."""
  pixels, _ = digits(split)

  def read(indices):
    return (fit(Image.fromarray(pixels[i]), config) for i in indices)

  return Source(f"digits {split}", len(pixels), config.image_size, read)


@functools.cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
  """Digits uint8 `[n, 8, 8]` and labels int64 `[n]`, in an order fixed once."""
  from sklearn import datasets, model_selection  # A second of start-up time.

  bunch = datasets.load_digits()
  pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
  train_and_test = model_selection.train_test_split(
    np.arange(len(pixels)),
    test_size=360,
    stratify=bunch.target,
    random_state=0,
  )
  rows = train_and_test[split == "test"]
  return pixels[rows], bunch.target[rows]


def open_folder(
  path: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a tree of image files.

  Args:
    path: the folder.
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source; it reads files as they are needed.

  Raises:
    DataError: there is no such folder or split, or no image in it.
  """
  root = _split_folder(os.path.expanduser(path), split)
  files = list(_walk(root))
  paths = [file for file in files if file.lower().endswith(EXTENSIONS)]
  if not paths:
    found = sorted({os.path.splitext(file)[1] or file for file in files})
    raise DataError(
      f"No images in {root!r}: expected files that end in "
      f"{' '.join(EXTENSIONS)}; found {len(files)} other files "
      f"({' '.join(found[:8]) or 'it is empty'}). Give the folder that holds "
      "the images: --config.data.source=folder:PATH"
    )
  # Names may hold bytes that are no text, which cannot be printed.
  name = f"folder:{root if root.isprintable() else repr(root)}"
  skipped = _Skipped(name, len(paths))

  def decode_usable(index):
    for i in itertools.chain(range(index, len(paths)), range(index)):
      if i not in skipped:
        try:
          return decode(_read_file(paths[i]), config, upright=True)
        except BadImageError as error:
          skipped.add(i, paths[i], error.reason)
    raise skipped.too_many()

  read = functools.partial(map_decode, decode_usable)
  return Source(
    name, len(paths), config.image_size, read, skipped=skipped.summary
  )


class _Skipped:
  """Counts a folder's images that cannot be used; threads may share it."""

  def __init__(self, name: str, num_images: int):
    self._name, self._num_images = name, num_images
    allowed = max(_MAX_BAD, int(_MAX_BAD_SHARE * num_images))
    self._allowed = min(allowed, num_images - 1)
    self._reasons: dict[int, Reason] = {}
    self._lock = threading.Lock()

  def __contains__(self, index: int) -> bool:
    return index in self._reasons

  def add(self, index: int, path: str, reason: Reason) -> None:
    """Counts an image once and says so on stderr.

    Raises:
      DataError: there are too many.
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
    """Says how many images were skipped and why; '' for none."""
    if not self._reasons:
      return ""
    return (
      f"{self._name}: {len(self._reasons):,} of {self._num_images:,} images "
      f"skipped: {self._counts()}"
    )

  def too_many(self) -> DataError:
    """The error that ends reading."""
    return DataError(
      f"{self._name}: expected at most {self._allowed:,} images that cannot be "
      f"used, found {len(self._reasons):,} of {self._num_images:,}: "
      f"{self._counts()}. The first of them are named above. Mend or delete "
      "them, or give another folder: --config.data.source=folder:PATH"
    )

  def _counts(self) -> str:
    # A copy, made at once: other threads may add to it.
    counts = collections.Counter(sorted(self._reasons.values()))
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common())


def _split_folder(root: str, split: str) -> str:
  """The folder that holds a split's images."""
  if not os.path.isdir(root):
    raise DataError(
      f"config.data.source: expected a folder of images, found no folder "
      f"{root!r}. Give one: --config.data.source=folder:PATH"
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
    f"{', '.join(SPLITS[split])}. Make them and move images there: "
    f"mkdir -p {train} {test}"
  )


def _walk(root: str) -> Iterator[str]:
  """Yields all files below a folder by name, each real folder's once.

  Raises:
    DataError: the file system fails.
  """

  def skip(error):
    reason = _reason(error.filename, error)
    print(f"Skipping the folder {error.filename!r}: {reason}", file=sys.stderr)

  seen = set()
  for folder, folders, files in os.walk(root, onerror=skip, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:  # A link back up would never end.
      folders.clear()
      continue
    seen.add(real)
    # Names that start with a dot are left by file managers and notebooks.
    folders[:] = sorted(name for name in folders if name[0] != ".")
    for name in sorted(files):
      if name[0] != ".":
        yield os.path.join(folder, name)
