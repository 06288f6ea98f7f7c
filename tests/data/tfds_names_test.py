"""Splits and features of TensorFlow data sets by name; images of 0 and 1."""

import numpy as np
import pytest
import tiny

from hatebm_jax import data
from hatebm_jax.data import notice

COUNT = 40
FORMATS = ("tfrecord", "array_record")


def pixels(i, largest=255):
  """Returns the image i; its first pixel has the value i."""
  image = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
  image[0, 0] = i
  image[1, 1] = largest
  return image


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Prepares data sets with several features and splits."""
  pytest.importorskip("tensorflow")  # It writes data sets.
  tfds = pytest.importorskip("tensorflow_datasets")
  directory = tmp_path_factory.mktemp("tfds")
  image = tfds.features.Image(shape=(6, 6, 3), encoding_format="png")
  gray = tfds.features.Image(shape=(6, 6, 1), encoding_format="png")
  deep = tfds.features.Image(
    shape=(6, 6, 1), dtype=np.uint16, encoding_format="png"
  )
  depth = tfds.features.Image(shape=(6, 6, 1), dtype=np.float32)
  tensor = tfds.features.Tensor(shape=(6, 6, 1), dtype=np.float32)

  def example(i):
    image = pixels(i)
    return {
      "image": image,
      "left image": 255 - image,
      "mask": (image[..., :1] > 127).astype(np.uint8),
      "deep": image[..., :1].astype(np.uint16) * 257,
      "deep_mask": (image[..., :1] > 127).astype(np.uint16),
      "depth": image[..., :1].astype(np.float32) / 255,
      "tensor": image[..., :1].astype(np.float32) / 255,
    }

  for file_format in FORMATS:
    tfds.dataset_builders.store_as_tfds_dataset(
      name=f"tiny_{file_format}",
      version="1.0.0",
      features=tfds.features.FeaturesDict(
        {
          "image": image,
          "left image": image,
          "mask": gray,
          "deep": deep,
          "deep_mask": deep,
          "depth": depth,
          "tensor": tensor,
        }
      ),
      split_datasets={
        "train": [(i, example(i)) for i in range(COUNT)],
        "dark_side": [(i, example(i)) for i in range(COUNT, COUNT + 7)],
      },
      data_dir=directory,
      file_format=file_format,
    )
  return str(directory)


@pytest.fixture(params=FORMATS)
def open_tiny(request, data_dir):
  """Returns a function that opens the data set in either format."""

  def open_it(split="train", **overrides):
    overrides = {"image_size": 6, "data_dir": data_dir} | overrides
    source = f"tfds:tiny_{request.param}"
    return data.open_source(tiny.data_config(source, **overrides), split)

  return open_it


def numbers(source):
  """Returns which images a source has."""
  return sorted(data.load_all(source)[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_splits_by_name_and_parts_of_them(open_tiny, cache_gib):
  def found(split="train", **overrides):
    return numbers(open_tiny(split, cache_gib=cache_gib, **overrides))

  everything = list(range(COUNT + 7))
  assert found() == everything[:COUNT]
  assert found(train_split="dark_side") == everything[COUNT:]
  assert found("test", test_split="dark_side") == everything[COUNT:]
  assert found(train_split="train+dark_side") == everything
  first = found(train_split="train[:90%]")
  rest = found("test", test_split="train[90%:]")
  assert (len(first), len(rest)) == (36, 4)
  assert sorted(first + rest) == everything[:COUNT]


def test_a_part_of_a_split_is_streamed_over_hosts(open_tiny):
  source = open_tiny(train_split="train[:75%]", cache_gib=0.0)
  wanted = numbers(source)
  hosts = [
    tiny.take(
      source, 15, batch_size=2, seed=0, process_index=i, process_count=2
    )
    for i in range(2)
  ]
  seen = np.stack(hosts)[:, :, 0, 0, 0, 0]
  assert sorted(seen.ravel().tolist()) == wanted
  resumed = tiny.take(
    source,
    5,
    batch_size=2,
    seed=0,
    first_step=10,
    process_index=1,
    process_count=2,
  )
  np.testing.assert_array_equal(resumed, hosts[1][10:])


@pytest.mark.parametrize(
  "wanted", ["odd", "train[", "train[:200 apples]", "../train", "train/x", "[]"]
)
def test_a_split_that_does_not_exist(open_tiny, wanted):
  message = r"train_split='.*': expected a split of .*'train', 'dark_side'"
  with pytest.raises(data.DataError, match=message) as error:
    open_tiny(train_split=wanted)
  assert "--config.data.train_split=" in str(error.value)


def test_no_test_split_names_the_field(open_tiny):
  with pytest.raises(data.DataError, match=r"--config\.data\.test_split=SPLIT"):
    open_tiny("test")


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_features_by_name(open_tiny, capsys, cache_gib):
  def read(feature):
    source = open_tiny(feature=feature, cache_gib=cache_gib)
    return data.load_all(source)

  notice.say.cache_clear()  # A line is printed once in a process.
  images = read("")
  np.testing.assert_array_equal(read("image"), images)
  np.testing.assert_array_equal(read("left image"), 255 - images)
  gray = np.repeat(images[..., :1], 3, -1)
  np.testing.assert_array_equal(read("deep"), gray)
  assert "largest pixel" not in capsys.readouterr().err
  white = np.where(gray > 127, 255, 0)
  np.testing.assert_array_equal(read("mask"), white)
  assert "black (0) and white (1)" in capsys.readouterr().err
  np.testing.assert_array_equal(read("deep_mask"), white)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_streamed_masks_are_black_and_white(open_tiny, cache_gib):
  source = open_tiny(feature="mask", cache_gib=cache_gib)
  batches = tiny.take(source, 4, batch_size=8, seed=1)
  assert np.unique(batches).tolist() == [0, 255]


@pytest.mark.parametrize("feature", ["depth", "tensor", "odd", "image/mask"])
def test_a_feature_that_is_no_image(open_tiny, feature):
  with pytest.raises(data.DataError) as error:
    open_tiny(feature=feature)
  message = str(error.value)
  assert f"uint8 or uint16 image as its feature '{feature}'" in message
  assert "['deep', 'deep_mask', 'image', 'left image', 'mask']" in message
  assert "--config.data.feature=" in message


def test_a_data_dir_under_the_home_folder(open_tiny, data_dir, monkeypatch):
  monkeypatch.setenv("HOME", data_dir)
  assert open_tiny(data_dir="~").num_images == COUNT
