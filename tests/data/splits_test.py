"""Reading the images of a split for evaluation."""

import numpy as np
import pytest
import tiny
from image_files import noise, save_one

from hatebm_jax import data

COUNT = 7


@pytest.fixture(name="config")
def folder_config(tmp_path):
  """Returns a config of seven images that are wider than high."""
  for i in range(COUNT):
    source = save_one(tmp_path, noise(i, 8, 12), f"{i}.png")
  return tiny.data_config(source, crop="random")


def test_a_split_has_centre_squares_and_decodes_what_is_asked_for(
  config, tmp_path
):
  (tmp_path / "6.png").write_bytes(b"broken")
  source = data.open_split(config, "train")
  assert config.crop == "random"
  assert source.skipped() == ""
  np.testing.assert_array_equal(source.images([3])[0], noise(3, 8, 12)[:, 2:10])
  data.load_all(source)
  assert "1 of 7 images skipped" in source.skipped()


def test_a_choice_is_fixed_and_keeps_the_order(config):
  images = data.load_all(data.open_split(config, "train"))
  assert images.shape == (COUNT, 8, 8, 3)
  np.testing.assert_array_equal(data.load_images(config, "train", 9), images)
  chosen = data.load_images(config, "train", 4)
  rows = [
    next(i for i in range(COUNT) if (image == images[i]).all())
    for image in chosen
  ]
  order = np.random.default_rng(0).permutation(COUNT)
  assert rows == sorted(order[:4])


def test_one_pass_gives_batches_and_a_smaller_last_one(config):
  source = data.open_split(config, "train")
  chunks = list(data.in_order(source, [0, 1, 2, 4, 6], batch_size=2))
  assert [len(chunk) for chunk in chunks] == [2, 2, 1]
  np.testing.assert_array_equal(
    np.concatenate(chunks), source.images([0, 1, 2, 4, 6])
  )


def test_a_split_that_does_not_exist(config):
  with pytest.raises(data.DataError, match="no test images"):
    data.load_images(config, "test", 4)
