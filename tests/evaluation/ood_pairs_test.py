import numpy as np
import pytest
import tiny
from image_files import save_gray
from PIL import Image

from hatebm_jax import data
from hatebm_jax.evaluation import ood_pairs


def test_both_sides_get_the_lower_resolution(tmp_path):
  # Digits are 8 pixels large, and the hat's images 16.
  config = tiny.config(ood__num_images=20)
  for size, expected in ((64, 8), (4, 4)):
    pair = ood_pairs.load(config, save_gray(tmp_path / str(size), size))
    assert pair.resized_to == expected
    assert pair.images_in.shape == (20, 16, 16, 1)
    assert pair.held_out.shape == (340, 16, 16, 1)
    assert pair.images_out.shape == (5, 16, 16, 1)
  # The in-distribution images went down to 4 pixels and up again, too. Those
  # that are held out are others.
  low = config.data.copy_and_resolve_references()
  low.image_size = 4
  small = data.load_all(data.open_source(low, "test"))
  order = np.random.default_rng(0).permutation(360)
  for images, chosen in (
    (pair.images_in, np.sort(order[:20])),
    (pair.held_out, np.sort(order[20:])),
  ):
    expected = Image.fromarray(small[chosen[0], :, :, 0]).resize(
      (16, 16), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(images[0, :, :, 0], expected)


def test_images_of_the_hats_size_or_more_are_not_enlarged(tmp_path):
  config = tiny.config(
    data__source=save_gray(tmp_path / "in", 20, split="train")
  )
  save_gray(tmp_path / "in", 20, 7, split="test")
  pair = ood_pairs.load(config, save_gray(tmp_path / "out", 30))
  assert pair.resized_to == 16
  expected = data.load_all(data.open_source(config.data, "test"))
  np.testing.assert_array_equal(pair.images_in, expected)


def test_the_test_split_is_taken_where_there_is_one(tmp_path):
  source = save_gray(tmp_path / "a", 16, 6, split="train")
  save_gray(tmp_path / "a", 16, 4, split="test")
  pair = ood_pairs.load(tiny.config(), source)
  assert len(pair.images_out) == 4 and pair.names[1].endswith("test")


@pytest.mark.parametrize(
  ("num_images", "expected"), [(100, 260), (260, 100), (261, None)]
)
def test_images_are_held_out_if_a_hundred_are_left(num_images, expected):
  # Digits have 360 test images.
  pair = ood_pairs.load(tiny.config(ood__num_images=num_images), "flipped")
  found = pair.held_out
  assert (None if found is None else len(found)) == expected


def test_images_upside_down():
  config = tiny.config(data__image_size=16, ood__num_images=20)
  pair = ood_pairs.load(config, "flipped")
  assert pair.names == ("digits test", "digits test, flipped")
  assert pair.resized_to == 8
  # A resize commutes with the flip but for rounding.
  difference = pair.images_out[:, ::-1].astype(int) - pair.images_in
  assert np.abs(difference).max() <= 1
  assert np.abs(pair.images_out.astype(int) - pair.images_in).mean() > 10


@pytest.mark.parametrize(
  ("name", "size", "side"),
  [
    ("permuted_pixels", 16, 1),
    ("permuted_blocks", 16, 4),
    ("permuted_blocks", 10, 2),
    ("permuted_blocks", 15, 3),
    ("permuted_blocks", 3, 1),
  ],
)
def test_permuted_images_have_the_same_blocks(name, size, side):
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (6, size, size, 3), np.uint8)
  found, again = (ood_pairs.MADE[name](images) for _ in range(2))
  np.testing.assert_array_equal(found, again)

  def blocks(image):
    places = range(0, size - size % side, side)
    return [
      image[y : y + side, x : x + side].tobytes()
      for y in places
      for x in places
    ]

  orders = set()
  for image, new in zip(images, found, strict=True):
    before, after = blocks(image), blocks(new)
    assert sorted(before) == sorted(after) and before != after
    orders.add(tuple(before.index(block) for block in after))
  assert len(orders) == 6


def test_blocks_that_do_not_fill_the_image_leave_its_rim():
  images = np.random.default_rng(1).integers(0, 256, (2, 11, 11, 1), np.uint8)
  found = ood_pairs.MADE["permuted_blocks"](images)
  np.testing.assert_array_equal(found[:, 10:], images[:, 10:])
  np.testing.assert_array_equal(found[:, :, 10:], images[:, :, 10:])
  assert (found[:, :10, :10] != images[:, :10, :10]).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_both_sides_are_encoded_alike(tmp_path, channels):
  """The same pictures as PNG and as JPEG are told apart by nothing."""
  rng = np.random.default_rng(0)
  for i in range(8):
    shape = (4, 4) if channels == 1 else (4, 4, 3)
    image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    image = image.resize((16, 16), Image.Resampling.BILINEAR)
    for place in ("png/train", "png/test", "jpeg"):
      (tmp_path / place).mkdir(parents=True, exist_ok=True)
    image.save(tmp_path / "png" / "train" / f"{i}.png")
    image.save(tmp_path / "png" / "test" / f"{i}.png")
    image.save(tmp_path / "jpeg" / f"{i}.jpg", quality=30)
  settings = {
    "data__source": f"folder:{tmp_path / 'png'}",
    "data__channels": channels,
  }
  source = f"folder:{tmp_path / 'jpeg'}"
  plain = ood_pairs.load(tiny.config(**settings), source)
  alike = ood_pairs.load(tiny.config(**settings, ood__jpeg_quality=30), source)
  difference = lambda pair: np.abs(
    pair.images_in.astype(int) - pair.images_out
  ).mean()
  assert difference(plain) > 1
  assert difference(alike) < 0.1 * difference(plain)
  np.testing.assert_array_equal(
    alike.images_in, ood_pairs.reencode(plain.images_in, 30)
  )
