"""TensorFlow data sets: in order, streamed, resumed, split over hosts."""

import shlex

import child
import numpy as np
import pytest
import tiny

from hatebm_jax import data

TRAIN, TEST = 203, 7


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Prepares data sets with and without images."""
  pytest.importorskip("tensorflow")  # It writes data sets.
  tfds = pytest.importorskip("tensorflow_datasets")
  directory = tmp_path_factory.mktemp("tfds")

  # Strips are 8 high and 8, 12 or 16 wide. Red is i, green is the column.
  def strip(i):
    pixels = np.full((8, i % 3 * 4 + 8, 3), i, np.uint8)
    pixels[..., 1] = np.arange(pixels.shape[1])
    return {"image": pixels, "label": i}

  def store(name, features, ordered=False, file_format=None, **splits):
    tfds.dataset_builders.store_as_tfds_dataset(
      name=name,
      version="1.0.0",
      features=tfds.features.FeaturesDict(features),
      split_datasets=splits,
      data_dir=directory,
      disable_shuffling=ordered,
      file_format=file_format,
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
    "tiny_records",
    {"image": image, "label": label},
    file_format="array_record",
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
  config = tiny.data_config("tfds:tiny_strips", data_dir=data_dir, **overrides)
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
def test_array_records_are_read_at_random_places(data_dir, cache_gib):
  config = tiny.data_config(
    "tfds:tiny_records", data_dir=data_dir, cache_gib=cache_gib
  )
  source, test = data.open_source(config), data.open_source(config, "test")
  assert source.stream is None and source.num_images == TRAIN
  images = data.load_all(source)
  np.testing.assert_array_equal(np.sort(values(images)), np.arange(TRAIN))
  np.testing.assert_array_equal(lefts(images), values(images) % 3 * 2)
  np.testing.assert_array_equal(
    np.sort(values(data.load_all(test))), np.arange(TRAIN, TRAIN + TEST)
  )
  indices = [150, 2, 2, 17, TRAIN - 1]
  np.testing.assert_array_equal(source.images(indices), images[indices])
  whole = tiny.take(source, 40, batch_size=8, seed=4)
  epoch = values(whole).ravel()[:TRAIN]
  np.testing.assert_array_equal(np.sort(epoch), np.arange(TRAIN))
  # Unlike those of a stream, batches do not depend on the number of hosts.
  host = tiny.take(
    source,
    7,
    batch_size=8,
    seed=4,
    first_step=33,
    process_index=1,
    process_count=2,
  )
  np.testing.assert_array_equal(host, whole[33:, 4:])


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_what_works_without_tensorflow(data_dir, tmp_path, kind):
  if kind == "broken":
    (tmp_path / "tensorflow.py").write_text('raise RuntimeError("broken")')
  script = f"""
{child.HIDE_TENSORFLOW if kind == "missing" else ""}
import tiny
from hatebm_jax import data

def read(name):
  config = tiny.data_config(f"tfds:{{name}}", data_dir={data_dir!r})
  try:
    print(name, len(data.load_all(data.open_source(config))))
  except data.DataError as error:
    print(name, error)

for name in ("tiny_records", "tiny_strips", "cifar10", "cifar1O"):
  read(name)
"""
  lines = child.python(script, tmp_path).splitlines()
  records, strips, missing, *_, unknown = lines
  assert records == f"tiny_records {TRAIN}"
  assert "files of the format tfrecord, which only TensorFlow reads" in strips
  assert "pip install tensorflow-cpu" in strips and "array_record" in strips
  reasons = {"missing": "ModuleNotFoundError", "broken": "Error: broken"}
  assert reasons[kind] in strips
  assert "not prepared" in missing and "needs TensorFlow" in missing
  assert "near names: cifar10" in unknown


def test_array_records_need_no_tensorflow_that_is_there(data_dir):
  script = f"""
import sys
import tiny
from hatebm_jax import data
config = tiny.data_config("tfds:tiny_records", data_dir={data_dir!r})
data.load_all(data.open_source(config))
print("tensorflow" in sys.modules)
"""
  assert child.python(script).strip() == "False"


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_tfds_batches_repeat_and_resume(data_dir, cache_gib, crop):
  source = open_tiny(data_dir, cache_gib=cache_gib, crop=crop)
  whole = tiny.take(source, 52, batch_size=8, seed=4)
  # Steps 0 and 3 lie in the first epoch, step 40 in the second.
  for first_step in (0, 3, 40):
    part = tiny.take(source, 10, batch_size=8, seed=4, first_step=first_step)
    np.testing.assert_array_equal(part, whole[first_step : first_step + 10])
  order = values(whole).ravel()[: 2 * TRAIN].reshape(2, TRAIN)
  np.testing.assert_array_equal(np.sort(order), np.tile(range(TRAIN), (2, 1)))
  assert (order[0] != order[1]).any()
  other = tiny.take(source, 10, batch_size=8, seed=5)
  assert (values(other) != values(whole[:10])).any()
  if crop == "random":
    widest = lefts(whole)[values(whole) % 3 == 2]
    assert set(widest) == set(range(9))


def test_tfds_stored_in_order_is_streamed_and_shuffled(data_dir):
  config = tiny.data_config(
    "tfds:tiny_ordered", data_dir=data_dir, cache_gib=0.0
  )
  source = data.open_source(config)
  batches = data.batches(source, TRAIN, seed=0)
  seen = next(batches)[:, 0, 0, 0]
  batches.close()
  assert sorted(seen) == list(range(TRAIN)) and list(seen) != sorted(seen)


def test_tfds_hosts_stream_parts_that_do_not_overlap(data_dir):
  source = open_tiny(data_dir, cache_gib=0.0)
  # 203 images on 3 hosts give epochs of 67 images a host.
  hosts = [
    tiny.take(
      source, 134, batch_size=3, seed=0, process_index=i, process_count=3
    )
    for i in range(3)
  ]
  for epoch in (slice(67), slice(67, 134)):
    seen = np.concatenate([values(host)[epoch].ravel() for host in hosts])
    assert len(seen) == len(set(seen)) == 201
  resumed = tiny.take(
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
    ("tiny_labels", r"expected .* image .* found tfds:tiny_labels"),
    (
      "tiny_tests",
      r"no train images: .* \['train', 'training'\], found \['test'\]",
    ),
  ],
)
def test_tfds_without_images_or_the_split(data_dir, name, message):
  config = tiny.data_config(f"tfds:{name}", data_dir=data_dir)
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


def test_tfds_not_prepared_names_a_command_that_runs(tmp_path):
  directory = str(tmp_path)
  config = tiny.data_config("tfds:cifar10", data_dir=directory)
  with pytest.raises(data.DataError, match="not prepared") as error:
    data.open_source(config)
  assert f"{directory}/cifar10/" in str(error.value)
  command = str(error.value).splitlines()[1]
  program, flag, code = shlex.split(command)
  assert (program, flag) == ("python", "-c")
  # The test downloads nothing: it runs the code up to the download.
  builder = code.split("; ")[1].removesuffix(".download_and_prepare()")
  import tensorflow_datasets as tfds

  assert eval(builder, {"tfds": tfds}).name == "cifar10"


def test_tfds_by_hand_names_the_archives(tmp_path):
  config = tiny.data_config("tfds:imagenet2012", data_dir=str(tmp_path))
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
  config = tiny.data_config(f"tfds:{name}", data_dir=str(tmp_path))
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)
