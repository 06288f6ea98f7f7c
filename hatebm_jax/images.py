"""Pictures: grids of images."""

import io
import math

import numpy as np
from PIL import Image

_ZOOM_TO = 32  # Smaller images, in pixels, are shown enlarged.


def grid(
  images: np.ndarray, columns: int | None = None, margin: int = 1
) -> np.ndarray:
  """Tiles images row by row.

  Args:
    images: Images, uint8 `[n, height, width, channels]`, with 1 or 3 channels.
    columns: Number of columns; None gives a grid that is nearly square.
    margin: Width in pixels of the white line around each image.

  Returns:
    The grid, uint8 `[rows * (height + margin) + margin, ..., channels]`.
  """
  zoom = max(1, _ZOOM_TO // images.shape[1])
  images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
  num, height, width, channels = images.shape
  columns = columns or math.ceil(math.sqrt(num))
  rows = -(-num // columns)
  height, width = height + margin, width + margin
  canvas = np.full(
    (rows * height + margin, columns * width + margin, channels), 255, np.uint8
  )
  for i, image in enumerate(images):
    top, left = i // columns * height + margin, i % columns * width + margin
    canvas[top : top + height - margin, left : left + width - margin] = image
  return canvas


def to_pillow(image: np.ndarray) -> Image.Image:
  """Returns uint8 `[height, width, 1 or 3]` as an image of Pillow."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_png(image: np.ndarray) -> bytes:
  """Returns uint8 `[height, width, 1 or 3]` as the content of a PNG file."""
  buffer = io.BytesIO()
  to_pillow(image).save(buffer, "PNG")
  return buffer.getvalue()
