"""Sources and batches, on real files that the tests write."""

import gc
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from sklearn import datasets

from hatebm_jax import data, errors, pixels

make_config = tiny.data_config


def take(source, num, **kwargs):
  iterator = data.batches(source, **kwargs)
  taken = list(itertools.islice(iterator, num))
  iterator.close()
  return np.stack(taken)


def data_threads():
  return [t for t in threading.enumerate() if t.name.startswith("hatebm_data")]


# Ranges.


@pytest.mark.parametrize("numpy", [np, jnp])
def test_uint8_to_float_and_back(numpy):
  levels = np.arange(256, dtype=np.uint8)
  images = pixels.to_float(numpy.asarray(levels))
  assert images.dtype == np.float32
  np.testing.assert_allclose(images[::51], np.linspace(-1, 1, 6), atol=1e-7)
  np.testing.assert_array_equal(pixels.to_uint8(images), levels)
  wild = pixels.to_uint8(numpy.asarray([-7.0, -1.001, 0.0, 1.001, np.inf]))
  assert wild.dtype == np.uint8
  np.testing.assert_array_equal(wild, [0, 0, 128, 255, 255])


# Order.


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
  source = data.open_source(make_config("digits", channels=1))
  whole = take(source, 60, batch_size=64, seed=5)
  assert whole.shape == (60, 64, 8, 8, 1)
  assert whole.dtype == np.uint8
  tail = take(source, 7, batch_size=64, seed=5, first_step=53)
  np.testing.assert_array_equal(tail, whole[53:])
  parts = [
    take(source, 60, batch_size=64, seed=5, process_index=i, process_count=4)
    for i in range(4)
  ]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
  np.testing.assert_array_equal(
    whole[0], source.images(data.batch_indices(1437, 64, 5, 0))
  )


# Digits.


def test_labels_are_known_for_digits_alone():
  found = data.labels(make_config("digits", channels=1), "test")
  np.testing.assert_array_equal(found, data.digits_labels("test"))
  assert data.labels(make_config("folder:images"), "test") is None


def test_digits_split_values_and_labels():
  splits = {}
  for split, count in (("train", 1437), ("test", 360)):
    source = data.open_source(make_config("digits", channels=1), split)
    images, labels = data.load_all(source), data.digits_labels(split)
    assert source.num_images == count
    assert images.shape == (count, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.shape == (count,)
    share = np.bincount(labels) / count
    np.testing.assert_allclose(share, 0.1, atol=0.004)
    splits[split] = (images, labels)
  images, labels = map(np.concatenate, zip(*splits.values(), strict=True))
  digits = datasets.load_digits()

  def in_order(pixels, targets):
    rows = np.c_[targets, pixels.reshape(len(pixels), -1)]
    return rows[np.lexsort(rows.T)]

  # 16 levels: 0 -> 0, 8 -> 127.5 -> 128 (to even), 16 -> 255.
  expected = np.round(digits.images * 15.9375)
  np.testing.assert_array_equal(
    in_order(images, labels), in_order(expected, digits.target)
  )
  assert images.min() == 0
  assert images.max() == 255


def test_digits_are_enlarged_bilinearly():
  small = data.load_all(data.open_source(make_config("digits", channels=1)))
  source = data.open_source(make_config("digits", image_size=16))
  large = source.images([3, 0])
  assert large.shape == (2, 16, 16, 3)
  np.testing.assert_array_equal(large[..., 0], large[..., 2])
  image = small[3, ..., 0].astype(float)
  # Half-pixel centres: a corner is kept; new pixels (2, 1) and (2, 2) lie
  # 3/4 and 1/4 of the way between old ones.
  assert large[0, 0, 0, 0] == image[0, 0]
  along_y = 0.25 * image[0] + 0.75 * image[1]
  expected = [0.75 * along_y[0] + 0.25 * along_y[1]]
  expected += [0.25 * along_y[0] + 0.75 * along_y[1]]
  np.testing.assert_allclose(large[0, 2, 1:3, 0], expected, atol=1.01)


# Folders.


def gradient(height, width, seed=0):
  """Every pixel another colour."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
  """11 images of every kind, and things that are none."""
  root = tmp_path / "images"
  (root / "a" / "deep").mkdir(parents=True)
  (root / ".thumbs").mkdir()
  for i in range(6):
    Image.fromarray(gradient(8, 8, i)).save(root / "a" / f"{i}.png")
  Image.fromarray(gradient(20, 12)).save(root / "a" / "deep" / "b.JPG")
  Image.fromarray(gradient(8, 8)[..., 0]).save(root / "gray.png")
  Image.fromarray(gradient(9, 30)).convert("P").save(root / "palette.gif")
  Image.fromarray(gradient(8, 8)).save(root / "lossless.webp", lossless=True)
  Image.fromarray(gradient(8, 8)).save(root / "z.bmp")
  Image.fromarray(gradient(8, 8)).save(root / ".thumbs" / "no.png")
  (root / "._z.bmp").write_bytes(b"a note of a file manager")
  (root / "README.txt").write_text("not an image")
  os.symlink(root, root / "a" / "loop")
  return root


def test_folder_reads_every_kind_in_a_stable_order(folder):
  source = data.open_source(make_config(f"folder:{folder}"))
  images = data.load_all(source)
  assert source.num_images == 11
  assert images.shape == (11, 8, 8, 3)
  assert images.dtype == np.uint8
  # gray, lossless, palette, z, then below a: 0 to 5, b.
  np.testing.assert_array_equal(images[0], gradient(8, 8)[..., :1] + [0] * 3)
  for row, seed in {1: 0, 3: 0, 4: 0, 5: 1, 9: 5}.items():
    np.testing.assert_array_equal(images[row], gradient(8, 8, seed))
  np.testing.assert_array_equal(source.images([5, 1, 5]), images[[5, 1, 5]])
  gray = data.open_source(make_config(f"folder:{folder}", channels=1))
  expected = images[4] @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(gray.images([4])[0, ..., 0], expected, atol=1)


def save_one(tmp_path, pixels, name="one.png", **kwargs):
  tmp_path.mkdir(exist_ok=True)
  Image.fromarray(pixels).save(tmp_path / name, **kwargs)
  return f"folder:{tmp_path}"


def test_centre_square_and_antialias(tmp_path):
  pixels = gradient(8, 20)
  wide = save_one(tmp_path / "wide", pixels)
  tall = save_one(tmp_path / "tall", pixels.swapaxes(0, 1))
  for path, centre in (
    (wide, pixels[:, 6:14]),
    (tall, pixels[:, 6:14].swapaxes(0, 1)),
  ):
    source = data.open_source(make_config(path))
    np.testing.assert_array_equal(source.images([0])[0], centre)
  # Halved with a triangle four pixels wide: weights 1, 3, 3, 1 over 8. Without
  # antialias it would be a mean of the middle two.
  small = data.open_source(make_config(wide, image_size=4)).images([0])[0]
  weights = np.array([1, 3, 3, 1]) / 8
  patch = pixels[1:5, 7:11].astype(float)
  expected = np.einsum("y,x,yxc->c", weights, weights, patch)
  np.testing.assert_allclose(small[1, 1], expected, atol=1.01)


def test_transparent_pixels_are_white_and_half_clear_ones_mix(tmp_path):
  pixels = np.zeros((8, 8, 4), np.uint8)
  pixels[0, 0] = [10, 20, 30, 255]
  pixels[0, 1] = [0, 100, 200, 51]  # 0.2 of the colour, 0.8 of white.
  source = data.open_source(make_config(save_one(tmp_path, pixels)))
  image = source.images([0])[0]
  np.testing.assert_array_equal(image[0, 0], [10, 20, 30])
  np.testing.assert_allclose(image[0, 1], [204, 224, 244], atol=1)
  np.testing.assert_array_equal(image[1:], 255)


def test_sixteen_bit_gray_and_camera_orientation(tmp_path):
  pixels = (np.arange(64, dtype=np.uint16) * 4 * 257).reshape(8, 8)
  deep = save_one(tmp_path / "deep", pixels)
  image = data.open_source(make_config(deep, channels=1)).images([0])[0]
  np.testing.assert_array_equal(image[..., 0], pixels // 257)
  exif = Image.Exif()
  exif[0x0112] = 3  # Taken upside down.
  turned = save_one(tmp_path / "turned", gradient(8, 8), exif=exif)
  image = data.open_source(make_config(turned)).images([0])[0]
  np.testing.assert_array_equal(image, gradient(8, 8)[::-1, ::-1])


@pytest.mark.parametrize("crop", ["center", "random"])
def test_cached_or_not_the_batches_are_the_same(folder, crop):
  batches = []
  for cache_gib in (1.0, 0.0):
    source = data.open_source(
      make_config(f"folder:{folder}", crop=crop, cache_gib=cache_gib)
    )
    batches.append(take(source, 9, batch_size=6, seed=1))
    resumed = take(source, 3, batch_size=6, seed=1, first_step=6)
    np.testing.assert_array_equal(resumed, batches[-1][6:])
  np.testing.assert_array_equal(*batches)


def test_random_crops_cover_the_long_side_and_host_rows_agree(tmp_path):
  # Column x of the pictures has the value x: a crop tells where it was cut.
  columns = np.arange(12, dtype=np.uint8)[:, None]
  pixels = np.broadcast_to(columns, (8, 12, 3))
  for name in ("a.png", "b.png"):
    path = save_one(tmp_path, pixels, name)
  source = data.open_source(make_config(path, crop="random"))
  whole = take(source, 100, batch_size=2, seed=0)
  counts = np.bincount(whole[:, :, 0, 0, 0].ravel())
  assert len(counts) == 5
  assert counts.min() > 20
  np.testing.assert_array_equal(source.images([0])[0, 0, :, 0], range(2, 10))
  for i in range(2):
    part = take(
      source, 100, batch_size=2, seed=0, process_index=i, process_count=2
    )
    np.testing.assert_array_equal(part[:, 0], whole[:, i])


def test_random_crop_resizes_the_short_side(tmp_path):
  source = data.open_source(
    make_config(save_one(tmp_path, gradient(16, 40)), crop="random")
  )
  (image,) = source.read([0])
  assert image.shape == (8, 20, 3)
  assert source.images([0]).shape == (1, 8, 8, 3)


def test_folders_train_and_test_are_the_splits(tmp_path):
  for split, count in (("train", 3), ("val", 2)):
    for i in range(count):
      save_one(tmp_path / split, gradient(8, 8, i), f"{i}.png")
  config = make_config(f"folder:{tmp_path}")
  assert data.open_source(config).num_images == 3
  assert data.open_source(config, "test").num_images == 2
  shutil.rmtree(tmp_path / "val")
  with pytest.raises(data.DataError, match="no test images: expected in it"):
    data.open_source(config, "test")


# Errors.


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"source": "cifar10"}, "expected digits, folder:PATH or tfds:NAME"),
    ({"source": "folder:"}, "found 'folder:'"),
    ({"source": "folder:/no/such"}, "no folder '/no/such'"),
  ],
)
def test_a_wrong_source_is_named_with_the_way_out(overrides, message):
  config = make_config("digits")
  config.update(overrides)
  with pytest.raises(data.DataError, match=message) as error:
    data.open_source(config)
  assert "--config.data." in str(error.value)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"image_size": 0}, "image_size=0: expected an integer from 1 to 4096"),
    ({"channels": 4}, "channels=4: expected 1 or 3"),
    ({"crop": "middle"}, "crop='middle': expected 'center' or 'random'"),
    ({"cache_gib": -1.0}, r"cache_gib=-1\.0: expected a number from 0"),
  ],
)
def test_a_wrong_field_is_named_with_the_way_out(overrides, message):
  config = make_config("digits")
  config.update(overrides)
  with pytest.raises(errors.ConfigError, match=message) as error:
    data.open_source(config)
  assert "--config.data." in str(error.value)


def test_a_wrong_split_is_named():
  with pytest.raises(data.DataError, match="train or test, found 'dev'"):
    data.open_source(make_config("digits"), "dev")


def test_a_folder_without_images_says_what_it_reads_and_found(tmp_path):
  config = make_config(f"folder:{tmp_path}")
  with pytest.raises(data.DataError, match=r"found 0 other files.*is empty"):
    data.open_source(config)
  (tmp_path / "scan.tiff").touch()
  message = r"\.jpg \.jpeg \.png .* found 1 other files \(\.tiff\)"
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


def test_batches_that_do_not_divide_or_are_too_large():
  data.check_batch(16, 8)
  with pytest.raises(data.DataError, match=r"found 20.*=16 or .*=24"):
    data.check_batch(20, 8)
  with pytest.raises(data.DataError, match=r"found 4\. Set it to [^ ]*=8$"):
    data.check_batch(4, 8)
  source = data.open_source(make_config("digits"))
  with pytest.raises(data.DataError, match="multiple of 3"):
    data.batches(source, 16, seed=0, process_count=3)
  with pytest.raises(data.DataError, match=r"batch of 2000 .* found 1437"):
    data.batches(source, 2000, seed=0)


# The thread.


def test_closing_or_dropping_the_iterator_ends_its_thread():
  source = data.open_source(make_config("digits"))
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


def test_an_error_in_the_thread_reaches_the_consumer(folder):
  source = data.open_source(make_config(f"folder:{folder}", cache_gib=0.0))
  for path in [*folder.glob("*.*"), *folder.glob("a/**/*.*")]:
    if path.is_file():
      path.write_bytes(b"broken")
  with pytest.raises(data.DataError, match="found 11 of 11: 11 not an image"):
    take(source, 11, batch_size=1, seed=0)
  assert not data_threads()


# TensorFlow data sets.

TRAIN, TEST = 203, 7


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Prepared data sets: one of images, one without."""
  tfds = pytest.importorskip("tensorflow_datasets")
  directory = tmp_path_factory.mktemp("tfds")

  # Strips 8 high, 8, 12 or 16 wide, red i and green the column.
  def strip(i):
    pixels = np.full((8, i % 3 * 4 + 8, 3), i, np.uint8)
    pixels[..., 1] = np.arange(pixels.shape[1])
    return {"image": pixels, "label": i}

  def store(name, features, ordered=False, **splits):
    tfds.dataset_builders.store_as_tfds_dataset(
      name=name,
      version="1.0.0",
      features=tfds.features.FeaturesDict(features),
      split_datasets=splits,
      data_dir=directory,
      disable_shuffling=ordered,
    )

  image = tfds.features.Image(shape=(8, None, 3), encoding_format="png")
  label = tfds.features.Scalar(np.int64)
  strips = [(i, strip(i)) for i in range(TRAIN + TEST)]
  train, test = strips[:TRAIN], strips[TRAIN:]
  store(
    "tiny_strips",
    {"image": image, "label": label},
    train=train,
    validation=test,
  )
  store(
    "tiny_ordered",
    {"image": image},
    ordered=True,
    train=[(i, {"image": example["image"]}) for i, example in train],
  )
  store(
    "tiny_tests", {"image": image}, test=[(0, {"image": strip(0)["image"]})]
  )
  store("tiny_labels", {"label": label}, train=[(0, {"label": 0})])
  return str(directory)


def open_tiny(data_dir, split="train", **overrides):
  config = make_config("tfds:tiny_strips", data_dir=data_dir, **overrides)
  return data.open_source(config, split)


def values(images):
  return images[..., 0, 0, 0]


def lefts(images):
  return images[..., 0, 0, 1]


def test_tfds_splits_and_centre(data_dir):
  source, test = open_tiny(data_dir), open_tiny(data_dir, "test")
  images = data.load_all(source)
  assert images.shape == (TRAIN, 8, 8, 3)
  np.testing.assert_array_equal(np.sort(values(images)), np.arange(TRAIN))
  np.testing.assert_array_equal(lefts(images), values(images) % 3 * 2)
  np.testing.assert_array_equal(
    np.sort(values(data.load_all(test))), np.arange(TRAIN, TRAIN + TEST)
  )


def test_tfds_images_are_the_same_cached_and_streamed(data_dir):
  cached, streamed = (
    open_tiny(data_dir, cache_gib=gib, channels=1) for gib in (1.0, 0.0)
  )
  assert cached.stream is None
  assert streamed.stream is not None
  for indices in ([40, 2, 2, 17], range(TRAIN)):
    images = streamed.images(indices)
    np.testing.assert_array_equal(images, cached.images(indices))


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_tfds_batches_repeat_and_resume(data_dir, cache_gib, crop):
  source = open_tiny(data_dir, cache_gib=cache_gib, crop=crop)
  whole = take(source, 52, batch_size=8, seed=4)
  for first_step in (0, 3, 40):  # In the first epoch, and in the second.
    part = take(source, 10, batch_size=8, seed=4, first_step=first_step)
    np.testing.assert_array_equal(part, whole[first_step : first_step + 10])
  order = values(whole).ravel()[: 2 * TRAIN].reshape(2, TRAIN)
  np.testing.assert_array_equal(np.sort(order), np.tile(range(TRAIN), (2, 1)))
  assert (order[0] != order[1]).any()
  other = take(source, 10, batch_size=8, seed=5)
  assert (values(other) != values(whole[:10])).any()
  if crop == "random":
    widest = lefts(whole)[values(whole) % 3 == 2]
    assert set(widest) == set(range(9))


def test_tfds_stored_in_order_is_streamed_and_shuffled(data_dir):
  config = make_config("tfds:tiny_ordered", data_dir=data_dir, cache_gib=0.0)
  source = data.open_source(config)
  batches = data.batches(source, TRAIN, seed=0)
  seen = next(batches)[:, 0, 0, 0]
  batches.close()
  assert sorted(seen) == list(range(TRAIN)) and list(seen) != sorted(seen)


def test_tfds_hosts_stream_parts_that_do_not_overlap(data_dir):
  source = open_tiny(data_dir, cache_gib=0.0)
  # 203 images on 3 hosts: an epoch is 67 a host.
  hosts = [
    take(source, 134, batch_size=3, seed=0, process_index=i, process_count=3)
    for i in range(3)
  ]
  for epoch in (slice(67), slice(67, 134)):
    seen = np.concatenate([values(host)[epoch].ravel() for host in hosts])
    assert len(seen) == len(set(seen)) == 201
  resumed = take(
    source,
    4,
    batch_size=3,
    seed=0,
    first_step=65,
    process_index=1,
    process_count=3,
  )
  np.testing.assert_array_equal(resumed, hosts[1][65:69])


@pytest.mark.parametrize(
  "name, message",
  [
    ("tiny_labels", r"expected .* uint8 image .* found tfds:tiny_labels"),
    ("tiny_tests", r"no train images: .* \['train'\], found \['test'\]"),
  ],
)
def test_tfds_without_images_or_the_split(data_dir, name, message):
  config = make_config(f"tfds:{name}", data_dir=data_dir)
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


def test_tfds_not_prepared_names_a_command_that_runs(tmp_path):
  directory = str(tmp_path)
  config = make_config("tfds:cifar10", data_dir=directory)
  with pytest.raises(data.DataError, match="not prepared") as error:
    data.open_source(config)
  assert f"{directory}/cifar10/" in str(error.value)
  command = str(error.value).splitlines()[1]
  program, flag, code = shlex.split(command)
  assert (program, flag) == ("python", "-c")
  # Nothing is downloaded here: the code is run up to the download.
  builder = code.split("; ")[1].removesuffix(".download_and_prepare()")
  import tensorflow_datasets as tfds

  assert eval(builder, {"tfds": tfds}).name == "cifar10"


def test_tfds_by_hand_names_the_archives(tmp_path):
  config = make_config("tfds:imagenet2012", data_dir=str(tmp_path))
  with pytest.raises(
    data.DataError, match=r"ILSVRC2012_img_train\.tar"
  ) as error:
    data.open_source(config)
  assert "DownloadConfig(manual_dir='DOWNLOADS'))\"" in str(error.value)


@pytest.mark.parametrize(
  "name, message",
  [
    ("cifar1O", "near names: cifar10"),
    ("qwertyuiop", "near names: none"),
    ("cifar10:0.0.1", "0.0.1"),
    ("bad name", "bad name"),
  ],
)
def test_tfds_unknown_names(tmp_path, name, message):
  config = make_config(f"tfds:{name}", data_dir=str(tmp_path))
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


def test_tensorflow_is_imported_for_its_data_sets_alone():
  code = (
    "import sys; from hatebm_jax import data; "
    "assert not {'tensorflow', 'sklearn'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
