"""Decodes JPEGs with the fast integer DCT, as TensorFlow does by default.

libjpeg has several inverse DCTs. Pillow takes the accurate one, and TensorFlow,
with which the paper's code read its images, the fast one. Their pixels differ
by one grey level on average, and the fast ones are darker by 0.7 to 0.8
(experiments/decoders). simplejpeg gives the choice. Its pixels are those of
`tf.io.decode_jpeg` to the bit (tests/data/jpeg_test.py).
"""

from typing import Any

from PIL import Image

from hatebm_jax import errors

FAST = "fast"
# Pillow decodes other JPEGs, such as those of CMYK.
_COLOURS = {"RGB": "RGB", "L": "GRAY"}


def decoder() -> str:
  """Returns the name of this decoder for records."""
  return f"simplejpeg {simplejpeg().__version__}, fast integer DCT"


def simplejpeg() -> Any:
  """Imports simplejpeg.

  Raises:
    ConfigError: It is not installed.
  """
  try:
    import simplejpeg as found
  except ImportError as error:
    raise errors.ConfigError(
      "config.data.jpeg_dct='fast' needs the package simplejpeg, which cannot "
      f"be imported ({error}). Run `pip install simplejpeg`, or take the "
      "decoder of Pillow, whose pixels differ by about one grey level: "
      "--config.data.jpeg_dct=accurate"
    ) from error
  return found


def decode_fast(encoded: bytes, image: Image.Image) -> Image.Image:
  """Decodes an image with the fast DCT if it is a colour or a gray JPEG.

  Args:
    encoded: Content of the image file.
    image: The same image as Pillow has opened it.

  Returns:
    The decoded image with the metadata of `image`, or `image` itself.

  Raises:
    ConfigError: simplejpeg is not installed.
    OSError: The image is damaged.
    ValueError: The image is damaged.
  """
  if image.format != "JPEG" or image.mode not in _COLOURS:
    return image
  decode = simplejpeg().decode_jpeg
  options = _COLOURS[image.mode], True, False  # fast DCT, usual upsampling
  try:
    pixels = decode(encoded, *options)
  except ValueError:
    image.load()  # Pillow tells harmless damage from a file that was cut.
    pixels = decode(encoded, *options, strict=False)
  pixels = pixels[..., 0] if image.mode == "L" else pixels
  decoded = Image.fromarray(pixels)
  decoded.info = image.info
  return decoded
