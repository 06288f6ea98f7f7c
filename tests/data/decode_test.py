"""Pixels of decoded images against values computed by hand."""

import numpy as np
import pytest
import tiny
from image_files import noise, save_one
from PIL import Image

from hatebm_jax import data


def test_centre_square_and_antialias(tmp_path):
  pixels = noise(0, 8, 20)
  wide = save_one(tmp_path / "wide", pixels)
  tall = save_one(tmp_path / "tall", pixels.swapaxes(0, 1))
  for path, centre in (
    (wide, pixels[:, 6:14]),
    (tall, pixels[:, 6:14].swapaxes(0, 1)),
  ):
    source = data.open_source(tiny.data_config(path))
    np.testing.assert_array_equal(source.images([0])[0], centre)
  # The size is halved with a triangle four pixels wide: its weights are 1, 3, 3
  # and 1 over 8. Without antialias it would be the mean of the middle two.
  small = data.open_source(tiny.data_config(wide, image_size=4)).images([0])[0]
  weights = np.array([1, 3, 3, 1]) / 8
  patch = pixels[1:5, 7:11].astype(float)
  expected = np.einsum("y,x,yxc->c", weights, weights, patch)
  np.testing.assert_allclose(small[1, 1], expected, atol=1.01)


def test_transparent_pixels_are_white_and_half_clear_ones_mix(tmp_path):
  pixels = np.zeros((8, 8, 4), np.uint8)
  pixels[0, 0] = [10, 20, 30, 255]
  pixels[0, 1] = [0, 100, 200, 51]  # 0.2 of the colour and 0.8 of white
  source = data.open_source(tiny.data_config(save_one(tmp_path, pixels)))
  image = source.images([0])[0]
  np.testing.assert_array_equal(image[0, 0], [10, 20, 30])
  np.testing.assert_allclose(image[0, 1], [204, 224, 244], atol=1)
  np.testing.assert_array_equal(image[1:], 255)


def test_sixteen_bit_gray_and_camera_orientation(tmp_path):
  pixels = (np.arange(64, dtype=np.uint16) * 4 * 257).reshape(8, 8)
  deep = save_one(tmp_path / "deep", pixels)
  image = data.open_source(tiny.data_config(deep, channels=1)).images([0])[0]
  np.testing.assert_array_equal(image[..., 0], pixels // 257)
  exif = Image.Exif()
  exif[0x0112] = 3  # This means upside down.
  turned = save_one(tmp_path / "turned", noise(), exif=exif)
  image = data.open_source(tiny.data_config(turned)).images([0])[0]
  np.testing.assert_array_equal(image, noise()[::-1, ::-1])


def test_random_crop_resizes_the_short_side(tmp_path):
  source = data.open_source(
    tiny.data_config(save_one(tmp_path, noise(0, 16, 40)), crop="random")
  )
  (image,) = source.read([0])
  assert image.shape == (8, 20, 3)
  assert source.images([0]).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [5, 32])
def test_resize_is_what_a_source_does(tmp_path, channels, image_size):
  path = save_one(tmp_path, noise(0, 12, 20))
  native = data.open_source(
    tiny.data_config(path, channels=channels, image_size=12)
  )
  resized = data.open_source(
    tiny.data_config(path, channels=channels, image_size=image_size)
  )
  np.testing.assert_array_equal(
    data.resize(data.load_all(native), image_size), data.load_all(resized)
  )
