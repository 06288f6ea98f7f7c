"""Where images come from: scikit-learn's digits and folders of image files.

`data_tfds.py` is the third kind of source. Every image is decoded by Pillow.
"""

import collections
import concurrent.futures
import functools
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# The names that a split goes by, the preferred one first.
SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
# An `image_size` that leaves images as large as they are.
NATIVE = 0
_DECODED_AHEAD = 128


class DataError(ValueError):
  """The data or its configuration is wrong; the message says how to mend it."""


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
  """

  name: str
  num_images: int
  image_size: int
  read: Callable[[Iterable[int]], Iterator[np.ndarray]]
  stream: Callable[[int, int, int, int], Iterator[np.ndarray]] | None = None

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


def decode(
  file: Any,
  config: ml_collections.ConfigDict,
  trouble: str,
  upright: bool = False,
) -> np.ndarray:
  """Decodes an image file.

  Args:
    file: path or binary file.
    config: `config.data`.
    trouble: the message where it cannot be read.
    upright: whether to follow the orientation that a camera noted.

  Returns:
    uint8 `[height, width, channels]`, the short side `image_size`; square for
    crop='center'.

  Raises:
    DataError: it cannot be read.
  """
  try:
    with Image.open(file) as image:
      if upright:
        image = ImageOps.exif_transpose(image)
      return fit(image, config)
  except Exception as error:  # Pillow raises OSError, SyntaxError and others.
    raise DataError(f"{trouble} ({error})") from error


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


def _convert(image: Image.Image, channels: int) -> Image.Image:
  """Converts to gray or colour, transparent pixels over white."""
  if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip.
    image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
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

  def decode_file(file):
    trouble = (
      f"Cannot read the image {file!r}. Replace it or delete it: "
      f"rm {shlex.quote(file)}"
    )
    return decode(file, config, trouble, upright=True)

  def read(indices):
    return map_decode(decode_file, (paths[i] for i in indices))

  return Source(f"folder:{root}", len(paths), config.image_size, read)


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
  elif name := pick_split(split, next(os.walk(root))[1]):
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
  """Yields all files below a folder by name, each real folder's once."""
  seen = set()
  for folder, folders, files in os.walk(root, followlinks=True):
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
