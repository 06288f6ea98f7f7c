"""Folders of image files: order, splits, and unusable images."""

import itertools
import shutil

import numpy as np
import pytest
import tiny
from image_files import encode, noise, save, save_one, write_tree

from hatebm_jax import data


def make_config(folder, **overrides):
  return tiny.data_config(f"folder:{folder}", **overrides)


def test_folder_reads_every_kind_in_a_stable_order(tmp_path):
  folder = tmp_path / "images"
  write_tree(folder)
  source = data.open_source(make_config(folder))
  images = data.load_all(source)
  assert source.num_images == 11
  assert images.shape == (11, 8, 8, 3)
  assert images.dtype == np.uint8
  # The order is gray, lossless, palette, z, then 0 to 5 and b below a.
  np.testing.assert_array_equal(images[0], noise()[..., :1] + [0] * 3)
  for row, seed in {1: 0, 3: 0, 4: 0, 5: 1, 9: 5}.items():
    np.testing.assert_array_equal(images[row], noise(seed))
  np.testing.assert_array_equal(source.images([5, 1, 5]), images[[5, 1, 5]])
  gray = data.open_source(make_config(folder, channels=1))
  expected = images[4] @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(gray.images([4])[0, ..., 0], expected, atol=1)


def test_folders_train_and_test_are_the_splits(tmp_path):
  for split, count in (("train", 3), ("val", 2)):
    for i in range(count):
      save_one(tmp_path / split, noise(i), f"{i}.png")
  config = make_config(tmp_path)
  assert data.open_source(config).num_images == 3
  assert data.open_source(config, "test").num_images == 2
  shutil.rmtree(tmp_path / "val")
  with pytest.raises(data.DataError, match="no test images: expected in it"):
    data.open_source(config, "test")


def test_a_folder_without_images_says_what_it_reads_and_found(tmp_path):
  config = make_config(tmp_path)
  with pytest.raises(data.DataError, match=r"found 0 other files.*is empty"):
    data.open_source(config)
  (tmp_path / "scan.tiff").touch()
  message = r"\.jpg \.jpeg \.jfif \.png .* found 1 other files \(\.tiff\)"
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


# Unusable images.


@pytest.fixture
def half_broken(tmp_path):
  """Returns a function that writes good images and empty files, mixed."""

  def write(num_good, num_bad):
    order = np.random.default_rng(0).permutation(num_good + num_bad)
    for i, place in enumerate(order):
      good = encode(noise(i)) if i < num_good else b""
      (tmp_path / f"{place:03d}.png").write_bytes(good)
    return tmp_path

  return write


@pytest.mark.parametrize("num_images, allowed", [(11, 10), (99, 10), (130, 13)])
def test_ten_images_or_ten_percent_may_be_bad(half_broken, num_images, allowed):
  folder = half_broken(num_images - allowed, allowed)
  assert len(data.load_all(data.open_source(make_config(folder)))) == num_images
  next(f for f in sorted(folder.iterdir()) if f.stat().st_size).write_bytes(
    b"?"
  )
  message = (
    f"at most {allowed} .* found {allowed + 1} of {num_images}: .* empty"
  )
  with pytest.raises(data.DataError, match=message) as error:
    data.open_source(make_config(folder))
  assert "--config.data.source=" in str(error.value)


def test_a_folder_with_no_usable_image(half_broken):
  folder = half_broken(0, 3)
  source = data.open_source(make_config(folder, cache_gib=0.0))
  for _ in range(2):  # The second call must end too.
    with pytest.raises(data.DataError, match=r"most 2 .* 3 of 3: 3 empty"):
      source.images([1])


def test_ten_are_named_sums_follow_and_none_counts_twice(half_broken, capsys):
  folder = half_broken(117, 13)
  source = data.open_source(make_config(folder, cache_gib=0.0))
  assert source.skipped() == ""
  for _ in range(3):
    data.load_all(source)
  *named, total = capsys.readouterr().err.splitlines()
  assert len(set(named)) == 10
  assert all(line.startswith("Skipping ") for line in named)
  assert total.endswith(": 10 of 130 images skipped: 10 empty")
  assert source.skipped().endswith(": 13 of 130 images skipped: 13 empty")


def test_threads_that_find_the_same_count_it_once(tmp_path, capsys):
  damaged = encode(noise(0, 600, 600))[:-200]  # This takes time to decode.
  for i in range(8):
    (tmp_path / f"{i}.png").write_bytes(damaged)
  save(tmp_path, "9.png")
  source = data.open_source(make_config(tmp_path, cache_gib=0.0))
  assert (data.load_all(source) == noise()).all()
  assert len(capsys.readouterr().err.splitlines()) == 8
  # An image that was skipped once stays skipped until the run ends.
  (tmp_path / "0.png").write_bytes(encode(noise(1)))
  np.testing.assert_array_equal(source.images([0])[0], noise())


@pytest.mark.parametrize("crop", ["center", "random"])
def test_cached_or_not_resumed_or_split_the_batches_are_the_same(
  half_broken, crop
):
  folder = half_broken(40, 10)

  def take(cache_gib, num, first_step=0, *process):
    config = make_config(folder, crop=crop, cache_gib=cache_gib)
    source = data.open_source(config)
    batches = data.batches(source, 8, 3, first_step, *process)
    taken = list(itertools.islice(batches, num))
    batches.close()
    return np.stack(taken)

  whole = take(1.0, 14)
  np.testing.assert_array_equal(take(0.0, 14), whole)
  np.testing.assert_array_equal(take(0.0, 4, 10), whole[10:])
  parts = [take(0.0, 14, 0, i, 2) for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
