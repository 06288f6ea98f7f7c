"""Order of the images, rows of hosts, and the thread that reads ahead."""

import gc
import threading

import image_files
import numpy as np
import pytest
import tiny

from hatebm_jax import data


def test_epochs_are_permutations_that_follow_without_a_gap():
  indices = np.concatenate(
    [data.batch_indices(10, 4, seed=3, step=step) for step in range(10)]
  )
  assert indices.dtype == np.int64
  epochs = indices.reshape(4, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (4, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_depends_on_the_seed_and_the_step_alone():
  first = data.batch_indices(1000, 64, seed=0, step=77)
  np.testing.assert_array_equal(first, data.batch_indices(1000, 64, 0, 77))
  assert (first != data.batch_indices(1000, 64, 1, 77)).any()
  # A batch longer than the set still holds every image equally often.
  counts = np.bincount(data.batch_indices(3, 12, seed=0, step=5))
  np.testing.assert_array_equal(counts, [4, 4, 4])


def test_resumed_batches_are_the_tail_and_hosts_share_a_batch():
  source = data.open_source(tiny.data_config("digits", channels=1))
  whole = tiny.take(source, 60, batch_size=64, seed=5)
  assert whole.shape == (60, 64, 8, 8, 1)
  assert whole.dtype == np.uint8
  tail = tiny.take(source, 7, batch_size=64, seed=5, first_step=53)
  np.testing.assert_array_equal(tail, whole[53:])
  parts = [
    tiny.take(
      source, 60, batch_size=64, seed=5, process_index=i, process_count=4
    )
    for i in range(4)
  ]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
  np.testing.assert_array_equal(
    whole[0], source.images(data.batch_indices(1437, 64, 5, 0))
  )


def test_random_crops_cover_the_long_side_and_host_rows_agree(tmp_path):
  # Column x of the pictures has the value x, which shows where a crop was cut.
  columns = np.arange(12, dtype=np.uint8)[:, None]
  pixels = np.broadcast_to(columns, (8, 12, 3))
  for name in ("a.png", "b.png"):
    path = image_files.save_one(tmp_path, pixels, name)
  source = data.open_source(tiny.data_config(path, crop="random"))
  whole = tiny.take(source, 100, batch_size=2, seed=0)
  counts = np.bincount(whole[:, :, 0, 0, 0].ravel())
  assert len(counts) == 5
  assert counts.min() > 20
  np.testing.assert_array_equal(source.images([0])[0, 0, :, 0], range(2, 10))
  for i in range(2):
    part = tiny.take(
      source, 100, batch_size=2, seed=0, process_index=i, process_count=2
    )
    np.testing.assert_array_equal(part[:, 0], whole[:, i])


def test_batches_that_do_not_divide_or_are_too_large():
  data.check_batch(16, 8)
  with pytest.raises(data.DataError, match=r"found 20.*=16 or .*=24"):
    data.check_batch(20, 8)
  with pytest.raises(data.DataError, match=r"found 4\. Set it to [^ ]*=8$"):
    data.check_batch(4, 8)
  source = data.open_source(tiny.data_config("digits"))
  with pytest.raises(data.DataError, match="multiple of 3"):
    data.batches(source, 16, seed=0, process_count=3)
  with pytest.raises(data.DataError, match=r"batch of 2000 .* found 1437"):
    data.batches(source, 2000, seed=0)


def data_threads():
  return [t for t in threading.enumerate() if t.name.startswith("hatebm_data")]


def test_closing_or_dropping_the_iterator_ends_its_thread():
  source = data.open_source(tiny.data_config("digits"))
  assert not data_threads()
  iterator = data.batches(source, 16, seed=0)
  next(iterator)
  assert len(data_threads()) == 1
  iterator.close()
  assert not data_threads()
  iterator = data.batches(source, 16, seed=0)
  next(iterator)
  assert len(data_threads()) == 1
  del iterator
  gc.collect()
  assert not data_threads()


def test_an_error_in_the_thread_reaches_the_consumer(tmp_path):
  folder = tmp_path / "images"
  image_files.write_tree(folder)
  source = data.open_source(tiny.data_config(f"folder:{folder}", cache_gib=0.0))
  for path in [*folder.glob("*.*"), *folder.glob("a/**/*.*")]:
    if path.is_file():
      path.write_bytes(b"broken")
  with pytest.raises(data.DataError, match="found 11 of 11: 11 not an image"):
    tiny.take(source, 11, batch_size=1, seed=0)
  assert not data_threads()
