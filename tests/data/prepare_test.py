"""Images that are made once: the same batches, and what survives what."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import child
import numpy as np
import pytest
import tiny
from image_files import noise, save_one, write_tree

from hatebm_jax import data
from hatebm_jax.data import prepare, prepared


def make(source, out, split="train", per_file=4, **overrides):
  config = tiny.data_config(source, **overrides)
  folder = prepare.prepare(config, split, str(out), per_file)
  config.update(source=f"prepared:{out}")
  return config, folder


def contents(folder):
  """Returns the content of all files, without the empty lock."""
  names = sorted(set(os.listdir(folder)) - {"lock"})
  return {x: open(os.path.join(folder, x), "rb").read() for x in names}


@pytest.fixture
def tree(tmp_path):
  """A folder of 11 images of every format, as a source."""
  write_tree(tmp_path / "images")
  return f"folder:{tmp_path / 'images'}"


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_batches_are_those_of_the_source(tmp_path, tree, crop, cache_gib):
  config, _ = make(tree, tmp_path / "out", crop=crop)
  original = data.open_source(tiny.data_config(tree, crop=crop))
  config.cache_gib = cache_gib
  found = data.open_source(config)
  batch = dict(batch_size=6, seed=1)
  expected = tiny.take(original, 9, **batch)
  np.testing.assert_array_equal(tiny.take(found, 9, **batch), expected)
  resumed = tiny.take(found, 3, first_step=6, **batch)
  np.testing.assert_array_equal(resumed, expected[6:])


def test_two_hosts_read_the_rows_of_one(tmp_path, tree):
  config, _ = make(tree, tmp_path / "out", cache_gib=0.0)
  source = data.open_source(config)
  one = tiny.take(source, 5, batch_size=6, seed=3)
  both = [
    tiny.take(source, 5, batch_size=6, seed=3, process_index=i, process_count=2)
    for i in range(2)
  ]
  np.testing.assert_array_equal(np.concatenate(both, 1), one)


def test_images_are_read_at_any_place(tmp_path):
  config, folder = make("digits", tmp_path / "out", "test", 100, cache_gib=0.0)
  found = data.open_source(config, "test")
  expected = data.open_source(tiny.data_config("digits"), "test")
  assert found.num_images == 360
  assert len(os.listdir(folder)) == 4 + 3
  places = [359, 0, 100, 99, 99, 200]
  np.testing.assert_array_equal(found.images(places), expected.images(places))


def test_digits_keep_their_labels(tmp_path):
  config, _ = make("digits", tmp_path / "out", "test", 100)
  expected = data.labels(tiny.data_config("digits"), "test")
  numbers, names = data.classes(config, "test")
  np.testing.assert_array_equal(numbers, expected)
  np.testing.assert_array_equal(data.labels(config, "test"), expected)
  assert names == list("0123456789")


def test_folders_are_classes(tmp_path):
  for name in ("cat", "dog"):
    (tmp_path / "images" / name).mkdir(parents=True)
  for i, name in enumerate(["dog/a", "cat/b", "cat/a"]):
    save_one(tmp_path / "images", noise(i), f"{name}.png")
  source = f"folder:{tmp_path / 'images'}"
  config, _ = make(source, tmp_path / "out")
  for each in (tiny.data_config(source), config):
    numbers, names = data.classes(each, "train")
    assert names == ["cat", "dog"] and numbers.tolist() == [0, 0, 1]
    # These classes are no digits.
    assert data.labels(each, "train") is None


def test_one_folder_has_no_classes(tmp_path):
  source = save_one(tmp_path / "images", noise())
  config, _ = make(source, tmp_path / "out")
  assert data.classes(config, "train") is None


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_tensorflow_data_set_keeps_its_labels(tmp_path, file_format):
  pytest.importorskip("tensorflow")  # It writes the data set.
  import tensorflow_datasets as tfds

  features = {
    "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
    "label": tfds.features.ClassLabel(names=["cat", "dog", "hat"]),
  }
  examples = [
    (i, {"image": np.full((8, 8, 3), i, np.uint8), "label": i % 3})
    for i in range(10)
  ]
  tfds.dataset_builders.store_as_tfds_dataset(
    name="tiny_classes",
    version="1.0.0",
    features=tfds.features.FeaturesDict(features),
    split_datasets={"train": examples},
    data_dir=tmp_path / "tfds",
    file_format=file_format,
  )
  config, _ = make(
    "tfds:tiny_classes", tmp_path / "out", data_dir=str(tmp_path / "tfds")
  )
  # TensorFlow Datasets stores the images in another order.
  images = data.load_all(data.open_source(config))
  numbers, names = data.classes(config, "train")
  assert sorted(images[:, 0, 0, 0]) == list(range(10))
  np.testing.assert_array_equal(numbers, images[:, 0, 0, 0] % 3)
  assert names == ["cat", "dog", "hat"]


KILLED = """
import json, os, signal, sys
import ml_collections
from hatebm_jax.data import prepare
config = ml_collections.ConfigDict(json.loads(sys.argv[1]))
write, count = prepare._write_file, 0

def write_or_die(path, images):
  global count
  count += 1
  if count < 3:
    return write(path, images)
  def some():
    yield next(images)
    os.kill(os.getpid(), signal.SIGKILL)
  return write(path, some())

prepare._write_file = write_or_die
prepare.prepare(config, "train", sys.argv[2], 4)
"""


def test_a_killed_call_goes_on(tmp_path, tree, capsys):
  out = tmp_path / "out"
  config = tiny.data_config(tree)
  settings = json.dumps(config.to_dict())
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, settings, str(out)],
    cwd=child.ROOT,
    capture_output=True,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  half = tiny.data_config(f"prepared:{out}")
  with pytest.raises(data.DataError, match="expected 11 images, found 8"):
    data.open_source(half)
  capsys.readouterr()
  _, folder = make(tree, out)
  assert "2 of 3 files are there" in capsys.readouterr().out
  _, whole = make(tree, tmp_path / "whole")
  left = contents(folder)
  assert left == contents(whole)
  assert sorted(left) == [
    *(f"images-0000{i}.array_record" for i in range(3)),
    "labels.int32",
    "set.json",
  ]


def flip(path):
  """Changes one bit of a pixel."""
  content = bytearray(path.read_bytes())
  content[20_000] ^= 1
  path.write_bytes(content)


def test_damage_is_found_and_mended(tmp_path, tree):
  # An image has 12,288 bytes.
  config, folder = make(tree, tmp_path / "out", cache_gib=0.0, image_size=64)
  before = contents(folder)
  flip(pathlib.Path(folder, "images-00001.array_record"))
  source = data.open_source(config)
  with pytest.raises(data.DataError, match="an image cannot be read"):
    source.images(range(source.num_images))
  make(tree, tmp_path / "out", image_size=64)
  assert contents(folder) == before


@pytest.mark.parametrize("name", ["images-00001.array_record", "labels.int32"])
def test_a_file_that_is_cut_is_named(tmp_path, tree, name):
  config, folder = make(tree, tmp_path / "out")
  os.truncate(os.path.join(folder, name), 40)
  with pytest.raises(data.DataError, match=name):
    data.open_source(config)
    data.classes(config, "train")


def test_another_source_is_refused(tmp_path, tree):
  make(tree, tmp_path / "out")
  with pytest.raises(data.DataError, match="another source: expected 'digits'"):
    make("digits", tmp_path / "out")


def test_two_calls_at_once_are_refused(tmp_path):
  with (
    prepare._alone(str(tmp_path)),
    pytest.raises(data.DataError, match="another process"),
    prepare._alone(str(tmp_path)),
  ):
    pass


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": [3]}', "no JSON"])
def test_a_foreign_record_is_refused(tmp_path, content):
  folder = tmp_path / "train_8_3_center_accurate"
  folder.mkdir()
  (folder / "set.json").write_text(content)
  config = tiny.data_config(f"prepared:{tmp_path}")
  with pytest.raises(data.DataError, match=r"set\.json"):
    data.open_source(config)


def test_a_missing_set_is_named_with_its_command(tmp_path, tree):
  config, _ = make(tree, tmp_path / "out", crop="random")
  config.crop = "center"
  with pytest.raises(data.DataError) as error:
    data.open_source(config)
  assert "found train_8_3_random_accurate" in str(error.value)
  assert "--config.data.image_size=8" in str(error.value)
  assert "--config.data.crop=center" in str(error.value)


def test_a_missing_folder_is_named(tmp_path):
  for path in (tmp_path / "none", "gs://bucket/set"):
    config = tiny.data_config(f"prepared:{path}")
    with pytest.raises(data.DataError, match="local or a mounted folder"):
      data.open_source(config)


def test_the_decoder_is_that_of_the_preparation(tmp_path, tree):
  config, folder = make(tree, tmp_path / "out")
  assert data.decoder(config) == data.decoder(tiny.data_config(tree))
  record = prepared.read_record(folder)
  record["decoder"] = "Pillow 1.0"
  with open(os.path.join(folder, "set.json"), "w") as file:
    json.dump(record, file)
  assert data.decoder(config) == "Pillow 1.0"


def test_native_images_have_the_prepared_size(tmp_path, tree):
  config, _ = make(tree, tmp_path / "out")
  make(tree, tmp_path / "out", image_size=16)
  assert data.native_size(config) == 16


def test_the_command(tmp_path):
  command = [
    *(sys.executable, "-m", "hatebm_jax.data.prepare", "digits"),
    *(str(tmp_path / "out"), "--config=digits"),
  ]
  first, second = (
    subprocess.run(command, cwd=child.ROOT, capture_output=True, text=True)
    for _ in range(2)
  )
  assert first.returncode == second.returncode == 0, first.stderr
  assert "train_16_1_center_accurate: 1,437 images." in first.stdout
  assert "test_16_1_center_accurate: 360 images." in first.stdout
  assert second.stdout.count("all files are whole") == 2
