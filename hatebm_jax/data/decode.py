"""Decodes images with Pillow and brings them to the configured shape."""

import collections
import concurrent.futures
import enum
import functools
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hatebm_jax import images as pictures

# This value of `image_size` leaves images as large as they are.
NATIVE = 0

# Pillow knows more formats. One of them, EPS, starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
_MAX_PIXELS = 89_478_485  # Pillow starts to warn at this number.
_MAX_ASPECT = 100
_DECODED_AHEAD = 128

# `decode` raises an error where Pillow only warns.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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


class BadImageError(ValueError):
  """This image cannot be used; other images of the same source may be fine.

  Attributes:
    reason: Why the image cannot be used.
  """

  def __init__(self, reason: Reason):
    super().__init__(str(reason))
    self.reason = reason


def decode(
  encoded: bytes, config: ml_collections.ConfigDict, upright: bool = False
) -> np.ndarray:
  """Decodes an image. Of an animation, it decodes the first frame.

  Args:
    encoded: Content of a JPEG, PNG, WebP, BMP or GIF file.
    config: `config.data`; the fields image_size, channels and crop are used.
    upright: Whether to turn the image as the camera's note of its orientation
      says.

  Returns:
    uint8 `[height, width, channels]`. The short side has `image_size` pixels;
    the image is square if crop is 'center'.

  Raises:
    BadImageError: The image cannot be used.
  """
  if not encoded:
    raise BadImageError(Reason.EMPTY)
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      _check_size(*image.size)
      if upright:
        image = ImageOps.exif_transpose(image)
      return fit(image, config.image_size, config.channels, config.crop)
  except (BadImageError, MemoryError):  # The image did not cause MemoryError.
    raise
  except UnidentifiedImageError as error:
    raise BadImageError(Reason.NO_IMAGE) from error
  except Image.DecompressionBombError as error:
    raise BadImageError(Reason.LARGE) from error
  except Exception as error:  # Pillow raises OSError, SyntaxError and others.
    raise BadImageError(Reason.DAMAGED) from error


def _check_size(width: int, height: int) -> None:
  """Refuses images that take too much memory when decoded or resized."""
  if width * height > _MAX_PIXELS:
    raise BadImageError(Reason.LARGE)
  if max(width, height) > _MAX_ASPECT * min(width, height):
    raise BadImageError(Reason.NARROW)


def fit(
  image: Image.Image, image_size: int, channels: int, crop: str
) -> np.ndarray:
  """Converts and resizes an image, bilinearly and with antialias.

  Args:
    image: Image of any size and mode.
    image_size: Length of the short side of the result in pixels. `NATIVE`
      keeps the size.
    channels: 1 (gray) or 3 (colour).
    crop: 'center' cuts the centre square first. 'random' keeps the long side,
      so that a square can be cut from it later.

  Returns:
    uint8 `[height, width, channels]`.
  """
  image = _convert(image, channels)
  width, height = image.size
  side = min(width, height)
  size = side if image_size == NATIVE else image_size
  if crop == "center":
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    width = height = side
  if side != size:
    shape = (round(width * size / side), round(height * size / side))
    image = image.resize(shape, Image.Resampling.BILINEAR)
  values = np.asarray(image)
  return values.reshape(*values.shape[:2], channels)


def _convert(image: Image.Image, channels: int) -> Image.Image:
  """Converts to gray or colour; transparent pixels become white."""
  if image.mode.startswith("I"):  # Pillow would clip 16-bit gray to 255.
    deep, clear = np.asarray(image), image.info.get("transparency")
    image = Image.fromarray((deep // 257).astype(np.uint8))
    if clear is not None:
      image.putalpha(Image.fromarray(deep != clear).convert("L"))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return image.convert("L" if channels == 1 else "RGB")


def resize(images: np.ndarray, image_size: int) -> np.ndarray:
  """Resizes decoded images in the way in which a source resizes its images.

  Args:
    images: uint8 `[n, height, width, channels]` with 1 or 3 channels.
    image_size: Height and width of the result in pixels.

  Returns:
    uint8 `[n, image_size, image_size, channels]`, made of centre squares.
  """
  channels = images.shape[-1]
  return np.stack(
    [
      fit(pictures.to_pillow(image), image_size, channels, "center")
      for image in images
    ]
  )


def cut(
  images: Sequence[np.ndarray], size: int, positions: np.ndarray | None = None
) -> np.ndarray:
  """Cuts a square out of every image.

  Args:
    images: `n` arrays uint8 `[height, width, channels]`, no side below `size`.
    size: Side of the squares in pixels.
    positions: Vertical and horizontal positions of the squares, `[n, 2]` in
      [0, 1). 0 stands for the top or the left. None cuts the centre squares.

  Returns:
    uint8 `[n, size, size, channels]`.
  """
  if positions is None:
    positions = np.full((len(images), 2), 0.5)
  squares = []
  for image, (y, x) in zip(images, positions, strict=True):
    top = int(y * (image.shape[0] - size + 1))
    left = int(x * (image.shape[1] - size + 1))
    squares.append(image[top : top + size, left : left + size])
  return np.stack(squares)


def map_decode(
  decode_item: Callable[[Any], np.ndarray], items: Iterable[Any]
) -> Iterator[np.ndarray]:
  """Decodes items in threads and yields the images in the order of the items.

  Threads help because Pillow releases Python's global lock.

  Args:
    decode_item: Function that decodes one item.
    items: What `decode_item` takes, for example encoded images.

  Yields:
    Results of `decode_item`.
  """
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
