"""Images of 0 and 1, and of few bits in many, are not read as black."""

import numpy as np
import pytest
import tiny
from image_files import encode, noise, save_one
from PIL import Image

from hatebm_jax import data

MASK = np.arange(64).reshape(8, 8) % 3 == 0


def read(folder, **overrides):
  config = tiny.data_config(f"folder:{folder}", **overrides)
  return data.load_all(data.open_source(config))


def write(folder, *images, **options):
  for i, pixels in enumerate(images):
    save_one(folder, pixels, f"{i}.png", **options)
  return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_zero_and_one_are_black_and_white(tmp_path, capsys, dtype, cache_gib):
  masks = [MASK, ~MASK, np.zeros_like(MASK), np.ones_like(MASK)]
  folder = write(tmp_path, *(mask.astype(dtype) for mask in masks))
  for channels in (1, 3):
    images = read(folder, channels=channels, cache_gib=cache_gib)
    expected = np.repeat(np.stack(masks)[..., None], channels, -1) * 255
    np.testing.assert_array_equal(images, expected)
  (line,) = capsys.readouterr().err.splitlines()
  assert "the largest pixel value of 4 images is 1." in line
  assert "black (0) and white (1)" in line


def test_zero_and_one_in_colour_and_with_transparency(tmp_path):
  color = noise() % 2
  clear = np.dstack([color, np.full((8, 8), 255, np.uint8)])
  clear[0, 0, 3] = 0
  images = read(write(tmp_path, color, clear))
  np.testing.assert_array_equal(images[0], color * 255)
  assert (images[1, 0, 0] == 255).all()
  np.testing.assert_array_equal(images[1, 1:], color[1:] * 255)


def test_they_are_scaled_before_they_are_resized(tmp_path):
  big = np.kron(MASK, np.ones((2, 2))).astype(np.uint8)
  big[0, 0] = 1 - big[0, 0]
  image = read(write(tmp_path, big), channels=1)[0, ..., 0]
  assert 0 < image[0, 0] < 255


def test_one_bit_images_are_as_they_were(tmp_path, capsys):
  image = read(write(tmp_path, MASK), channels=1)[0, ..., 0]
  np.testing.assert_array_equal(image, MASK * 255)
  assert capsys.readouterr().err == ""


def test_eight_bits_in_files_of_sixteen(tmp_path, capsys):
  pixels = noise()[..., 0]
  images = read(write(tmp_path, pixels.astype(np.uint16)), channels=1)
  np.testing.assert_array_equal(images[0, ..., 0], pixels)
  assert "read as images of 8 bits" in capsys.readouterr().err


@pytest.mark.parametrize(
  "pixels",
  [
    noise() % 16,  # the classes of a segmentation
    noise()[..., 0].astype(np.uint16) * 16,  # 12 bits
    np.zeros((8, 8), np.uint8),
  ],
)
def test_other_dark_sets_are_named(tmp_path, capsys, pixels):
  images = read(write(tmp_path, pixels))
  assert images.max() < 16
  assert "they are almost black" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 3])
def test_black_images_among_others_stay_black(tmp_path, capsys, place):
  images = [MASK.astype(np.uint8)] * 3
  images.insert(place, noise())
  read_images = read(write(tmp_path, *images))
  peaks = np.sort(read_images.max((1, 2, 3)))
  assert peaks.tolist() == [1, 1, 1, noise().max()]
  assert capsys.readouterr().err == ""


def test_images_that_cannot_be_used_do_not_count(tmp_path):
  folder = write(tmp_path, *[MASK.astype(np.uint8)] * 3)
  (folder / "0.png").write_bytes(b"")
  (folder / "1.png").write_bytes(encode(noise(0, 40, 40))[:-200])
  (folder / "none.png").symlink_to("nowhere")
  expected = np.repeat(MASK[..., None], 3, -1) * 255
  np.testing.assert_array_equal(read(folder), [expected] * 4)


def test_the_look_at_many_images_is_short(tmp_path):
  for i in range(60):
    save_one(tmp_path, np.ones((8, 8), np.uint8), f"{i:02}.png")
  # Beyond the 20 that are looked at, one image is not 0 and 1.
  Image.fromarray(noise()).save(tmp_path / "01.png")
  images = read(tmp_path)
  assert (images[0] == 255).all()
