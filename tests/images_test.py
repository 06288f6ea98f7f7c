import numpy as np
from PIL import Image

from hatebm_jax import film_strip, images
from hatebm_jax.run import files


def test_grid_by_hand():
  batch = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(32, 1)
  picture = images.grid(batch.repeat(32, 2), columns=2)
  assert picture.shape == (67, 67, 1)
  assert picture[1, 1] == 0 and picture[1, 34] == 1 and picture[34, 1] == 2
  assert picture[0, 0] == 255 and picture[34, 34] == 255


def test_small_images_are_enlarged():
  picture = images.grid(np.zeros((1, 8, 8, 3), np.uint8))
  assert picture.shape == (34, 34, 3)


def test_film_strip_has_a_row_a_chain():
  frames = np.zeros((3, 2, 32, 32, 1), np.uint8)
  frames[2, 1] = 7  # last frame of the second chain: bottom right
  picture = film_strip.tile(frames)
  assert picture.shape == (67, 100, 1)
  assert picture[-2, -2] == 7 and picture[1, -2] == 0


def test_png_is_read_back(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  files.write_png(tmp_path / "a" / "b.png", picture)
  np.testing.assert_array_equal(Image.open(tmp_path / "a" / "b.png"), picture)
