"""Pixel values: uint8 on the host, float32 in [-1, 1] on the devices."""

from typing import Any


def to_float(images: Any) -> Any:
  """Brings uint8 images, NumPy or JAX, to float32 in [-1, 1]."""
  return images.astype("float32") / 127.5 - 1.0


def to_uint8(images: Any) -> Any:
  """Clips images, NumPy or JAX, to [-1, 1] and rounds them to uint8."""
  images = images.astype("float32").clip(-1.0, 1.0)
  return (images * 127.5 + 127.5).round().astype("uint8")
