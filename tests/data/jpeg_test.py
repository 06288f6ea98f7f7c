"""JPEGs that are decoded with the fast DCT."""

import io

import numpy as np
import pytest
import tiny
from image_files import encode, noise, save_one
from PIL import Image
from sklearn import datasets

from hatebm_jax import data
from hatebm_jax.data import decode as decoding
from hatebm_jax.data import jpeg

pytest.importorskip("simplejpeg")


def decode(encoded, dct, channels=3):
  """Decodes an image as a source does, without a resize."""
  config = tiny.data_config(
    "", image_size=0, crop="random", jpeg_dct=dct, channels=channels
  )
  return decoding.decode(encoded, config, from_user=True)


def in_gray(encoded):
  with Image.open(io.BytesIO(encoded)) as image:
    return encode(image.convert("L"), "JPEG")


@pytest.fixture(scope="module")
def photos():
  """Photographs as JPEGs: chroma in full and in half the size, progressive."""
  images = datasets.load_sample_images().images
  small = [image[:218, :178] for image in images]
  options = (
    {"quality": 75, "subsampling": 0},
    {"quality": 90, "subsampling": 1},
    {"quality": 95, "subsampling": 2},
    {"quality": 60, "subsampling": 2, "progressive": True},
  )
  return [encode(image, "JPEG", **x) for image in small for x in options]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_tensorflow(photos, channels):
  tensorflow = pytest.importorskip("tensorflow")
  for encoded in photos:
    if channels == 1:
      encoded = in_gray(encoded)
    for dct, name in (("fast", ""), ("accurate", "INTEGER_ACCURATE")):
      expected = tensorflow.io.decode_jpeg(
        encoded, channels=channels, dct_method=name
      )
      found = decode(encoded, dct, channels)
      np.testing.assert_array_equal(found, expected.numpy())


def test_gray_images_in_colour(photos):
  gray = in_gray(photos[0])
  colour, one = decode(gray, "fast"), decode(gray, "fast", 1)
  np.testing.assert_array_equal(colour, np.repeat(one, 3, -1))


def test_the_fast_dct_is_darker(photos):
  pairs = [[decode(x, dct) for dct in ("fast", "accurate")] for x in photos]
  fast, accurate = (np.stack(images) for images in zip(*pairs, strict=True))
  difference = accurate.astype(int) - fast
  assert 0.6 < difference.mean() < 0.9
  assert 0.9 < np.abs(difference).mean() < 1.5


def test_other_images_are_pillows():
  cmyk = Image.fromarray(noise()).convert("CMYK")
  for encoded in (encode(cmyk, "JPEG"), encode(noise())):
    np.testing.assert_array_equal(
      decode(encoded, "fast"), decode(encoded, "accurate")
    )


def test_orientation_damage_and_harmless_garbage(photos):
  exif = Image.Exif()
  exif[0x0112] = 3  # This means upside down.
  pixels = decode(photos[0], "accurate")
  upright, turned = (encode(pixels, "JPEG", **x) for x in ({}, {"exif": exif}))
  np.testing.assert_array_equal(
    decode(turned, "fast"), decode(upright, "fast")[::-1, ::-1]
  )
  with pytest.raises(ValueError, match="truncated or damaged"):
    decode(upright[: len(upright) // 2], "fast")
  # A few bytes in front of a marker do no harm to the pixels.
  place = upright.index(b"\xff\xda")
  garbage = upright[:place] + b"\0\0\0" + upright[place:]
  np.testing.assert_array_equal(
    decode(garbage, "fast"), decode(upright, "fast")
  )


def test_a_folder_and_its_record(tmp_path):
  path = tmp_path / "images"
  source = save_one(path, noise())
  Image.fromarray(noise()).save(path / "a.jpg")
  config = tiny.data_config(source, jpeg_dct="fast")
  image = data.open_source(config).images([0])[0]
  expected = decode((path / "a.jpg").read_bytes(), "fast")
  np.testing.assert_array_equal(image, expected)
  assert jpeg.decoder() == data.decoder(config)
  assert data.decoder(config).startswith("simplejpeg ")
  assert data.decoder(tiny.data_config(source)).startswith("Pillow ")
