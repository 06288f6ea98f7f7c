"""Converts pixel values: uint8 on the host, float32 in [-1, 1] on devices."""

from typing import Any


def to_float(images: Any) -> Any:
  """Converts uint8 images to float32 in [-1, 1].

  Args:
    images: uint8 array of NumPy or JAX of any shape, values 0 to 255.

  Returns:
    float32 array of the same library and shape: images / 127.5 - 1.
  """
  return images.astype("float32") / 127.5 - 1.0


def to_uint8(images: Any) -> Any:
  """Clips images to [-1, 1] and rounds them to uint8.

  Args:
    images: Real array of NumPy or JAX of any shape.

  Returns:
    uint8 array of the same library and shape. A value halfway between two
    integers is rounded to the even one.
  """
  images = images.astype("float32").clip(-1.0, 1.0)
  return (images * 127.5 + 127.5).round().astype("uint8")
