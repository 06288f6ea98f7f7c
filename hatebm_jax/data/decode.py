"""Decodes images and brings them to the configured shape."""

import collections
import concurrent.futures
import contextlib
import enum
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError, features

from hatebm_jax import images as pictures
from hatebm_jax.data import jpeg, metadata

# This value of `image_size` leaves images as large as they are.
NATIVE = 0

# Pillow knows more formats. One of them, EPS, starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
_MAX_PIXELS = 89_478_485  # Pillow starts to warn at this number.
_MAX_ASPECT = 100
_DECODED_AHEAD = 128
_MAX_THREADS = 32
_PEAK_SIDE = 64  # pixels; enough to see whether an image is black

# How Pillow turns an image upright, by the EXIF value of its orientation.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

# `decode` raises an error where Pillow warns of too many pixels. Warnings about
# metadata do not concern the pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


class Reason(enum.StrEnum):
  """Why an image cannot be used."""

  MISSING = "missing"
  NO_PERMISSION = "no permission"
  NOT_REGULAR = "not a regular file"
  LARGE_FILE = "over 1 GiB"
  EMPTY = "empty"
  NO_IMAGE = "not an image"
  DAMAGED = "truncated or damaged"
  CLEAR = "transparent everywhere"
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


def decoder(config: ml_collections.ConfigDict) -> str:
  """Returns what decodes JPEGs; others decode them to other grey levels.

  Args:
    config: `config.data`; the field jpeg_dct is used.

  Raises:
    ConfigError: The package that decodes them is not installed.
  """
  if config.jpeg_dct == jpeg.FAST:
    return jpeg.decoder()
  library = features.version("libjpeg_turbo") or features.version("jpg")
  return f"Pillow {PIL.__version__}, libjpeg {library}"


def decode(
  encoded: bytes,
  config: ml_collections.ConfigDict,
  white: int | None = None,
  from_user: bool = False,
) -> np.ndarray:
  """Decodes an image. Of an animation, it decodes the first frame.

  Args:
    encoded: Content of a JPEG, PNG, WebP, BMP or GIF file.
    config: `config.data`; the fields image_size, channels, crop and
      jpeg_dct are used.
    white: Pixel value that stands for white, see `fit`.
    from_user: Whether the image is a user's own file. It is turned as the
      camera's note of its orientation says, and refused if all of it is
      transparent.

  Returns:
    uint8 `[height, width, channels]`. The short side has `image_size` pixels;
    the image is square if crop is 'center'.

  Raises:
    BadImageError: The image cannot be used.
  """

  def convert(image, encoded):
    if config.jpeg_dct == jpeg.FAST:
      image = jpeg.decode_fast(encoded, image)
    if from_user:
      image = _upright(image)
      if _is_clear(image):
        raise BadImageError(Reason.CLEAR)
    shape = config.image_size, config.channels, config.crop
    return fit(image, *shape, white)

  return _use(encoded, convert)


def peak(encoded: bytes) -> tuple[int, int]:
  """Returns the largest value of an image's pixels, and the largest possible.

  Args:
    encoded: Content of a JPEG, PNG, WebP, BMP or GIF file.

  Returns:
    The largest value over pixels and colours, without transparency, and 255 or
    65535.

  Raises:
    BadImageError: The image cannot be used.
  """

  def largest(image, _):
    image.draft("RGB", (_PEAK_SIDE, _PEAK_SIDE))  # This makes JPEGs fast.
    if _is_deep(image):
      return int(np.asarray(image).max()), 65_535
    return int(np.asarray(image.convert("RGB")).max()), 255

  return _use(encoded, largest)


def _use(encoded: bytes, use: Callable[[Image.Image, bytes], Any]) -> Any:
  """Opens an image, and opens it without its metadata if they are in the way.

  Args:
    encoded: Content of an image file.
    use: Function of the open image and its encoded content.

  Returns:
    Result of `use`.

  Raises:
    BadImageError: The image cannot be used.
  """
  if not encoded:
    raise BadImageError(Reason.EMPTY)
  try:
    return _open(encoded, use)
  except BadImageError as error:
    if error.reason in (Reason.DAMAGED, Reason.NO_IMAGE):
      for pixels in metadata.without(encoded):
        with contextlib.suppress(BadImageError):
          return _open(pixels, use)
    raise


def _open(encoded: bytes, use: Callable[[Image.Image, bytes], Any]) -> Any:
  """Opens an image with Pillow and calls a function of it."""
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      _check_size(*image.size)
      return use(_without_blank_alpha(image), encoded)
  except (BadImageError, MemoryError):  # The image did not cause MemoryError.
    raise
  except UnidentifiedImageError as error:
    raise BadImageError(Reason.NO_IMAGE) from error
  except Image.DecompressionBombError as error:
    raise BadImageError(Reason.LARGE) from error
  except Exception as error:  # Pillow raises OSError, SyntaxError and others.
    raise BadImageError(Reason.DAMAGED) from error


def _without_blank_alpha(image: Image.Image) -> Image.Image:
  """Drops the fourth channel of a BMP if it is zero everywhere.

  Many programs leave it unused. Browsers and Windows show such images opaque.
  """
  if image.format == "BMP" and image.mode == "RGBA" and _is_clear(image):
    return image.convert("RGB")
  return image


def _is_clear(image: Image.Image) -> bool:
  """Says whether all of an image is transparent."""
  if not image.has_transparency_data or _is_deep(image):
    return False
  return image.convert("RGBA").getextrema()[3][1] == 0


def _is_deep(image: Image.Image) -> bool:
  """Says whether an image is gray with more than 8 bits."""
  return image.mode.startswith("I")


def _upright(image: Image.Image) -> Image.Image:
  """Turns an image as the camera's note of its orientation says."""
  image.load()  # Damage to the pixels is an error, unlike damage to the note.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Pillow raises struct.error, SyntaxError and many others.
    return image
  turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
  return image if turn is None else image.transpose(turn)


def _check_size(width: int, height: int) -> None:
  """Refuses images that take too much memory when decoded or resized."""
  if width * height > _MAX_PIXELS:
    raise BadImageError(Reason.LARGE)
  if max(width, height) > _MAX_ASPECT * min(width, height):
    raise BadImageError(Reason.NARROW)


def fit(
  image: Image.Image,
  image_size: int,
  channels: int,
  crop: str,
  white: int | None = None,
) -> np.ndarray:
  """Converts and resizes an image, bilinearly and with antialias.

  Args:
    image: Image of any size and mode.
    image_size: Length of the short side of the result in pixels. `NATIVE`
      keeps the size.
    channels: 1 (gray) or 3 (colour).
    crop: 'center' cuts the centre square first. 'random' keeps the long side,
      so that a square can be cut from it later.
    white: Pixel value that stands for white. None means the largest value that
      the image's type can have, 255 or 65535.

  Returns:
    uint8 `[height, width, channels]`.
  """
  image = _convert(image, channels, white)
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


def _convert(
  image: Image.Image, channels: int, white: int | None
) -> Image.Image:
  """Converts to gray or colour; transparent pixels become white."""
  if _is_deep(image):  # Pillow would clip 16-bit gray to 255.
    deep, clear = np.asarray(image), image.info.get("transparency")
    levels = deep.astype(np.int64) * 255 // (white or 65_535)
    image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    if clear is not None:
      image.putalpha(Image.fromarray(deep != clear).convert("L"))
    white = None
  if image.has_transparency_data:
    image = image.convert("RGBA")
    background = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(background, image)
  image = image.convert("L" if channels == 1 else "RGB")
  if white:
    image = image.point(lambda value: min(255, value * 255 // white))
  return image


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
  # Further threads cost more than they bring: see experiments/feeding.
  cores = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")  # Only Linux has it.
    else os.cpu_count() or 1
  )
  return concurrent.futures.ThreadPoolExecutor(
    min(cores + 1, _MAX_THREADS), "decode"
  )
