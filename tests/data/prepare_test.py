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

from hatebm_jax import data, errors
from hatebm_jax.data import prepare


def make(
  source, out, split="train", per_file=4, shard=prepare.ALL, **overrides
):
  config = tiny.data_config(source, **overrides)
  folder = prepare.prepare(config, split, str(out), shard, per_file)
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
  assert len(os.listdir(folder)) == 2 * 4 + 3
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
prepare.prepare(config, "train", sys.argv[2], images_per_file=4)
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
  with pytest.raises(
    data.DataError, match="expected 3 files of images, found 2"
  ):
    data.open_source(half)
  capsys.readouterr()
  _, folder = make(tree, out)
  assert "2 of 3 files are there" in capsys.readouterr().out
  _, whole = make(tree, tmp_path / "whole")
  left = contents(folder)
  assert left == contents(whole)
  assert sorted(left) == [
    "images-00000.array_record",
    "images-00000.json",
    "images-00001.array_record",
    "images-00001.json",
    "images-00002.array_record",
    "images-00002.json",
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


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_make_the_files_of_one_call(tmp_path, tree, capsys, order):
  _, whole = make(tree, tmp_path / "whole", per_file=2)
  out = tmp_path / "out"
  for i in order:
    half = tiny.data_config(f"prepared:{out}")
    with pytest.raises(data.DataError, match=r"not complete|found none"):
      data.open_source(half)
    _, folder = make(tree, out, per_file=2, shard=prepare.Shard(i, 3))
  assert contents(folder) == contents(whole)
  assert "2 of 6 files are missing" in capsys.readouterr().out
  data.open_source(half)


def test_another_number_of_shards_goes_on(tmp_path, tree):
  _, whole = make(tree, tmp_path / "whole", per_file=2)
  make(tree, tmp_path / "out", per_file=2, shard=prepare.Shard(1, 4))
  for i in range(2):
    # The number of images in a file stays what it was.
    shard = prepare.Shard(i, 2)
    _, folder = make(tree, tmp_path / "out", per_file=5, shard=shard)
  assert contents(folder) == contents(whole)


def test_a_shard_of_another_source_is_refused(tmp_path, tree):
  make(tree, tmp_path / "out", shard=prepare.Shard(0, 2))
  with pytest.raises(data.DataError, match="another source: expected 'digits'"):
    make("digits", tmp_path / "out", shard=prepare.Shard(1, 2))


HOLDING = """
import sys
from etils import epath
from hatebm_jax.data import prepare
with prepare._alone(epath.Path(sys.argv[1]), [0, 2]):
  print("locked", flush=True)
  sys.stdin.read()
"""


def test_two_calls_for_one_file_are_refused(tmp_path, tree):
  folder = tmp_path / "out" / "train_8_3_center_accurate"
  folder.mkdir(parents=True)
  with subprocess.Popen(
    [sys.executable, "-c", HOLDING, str(folder)],
    cwd=child.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as other:
    assert other.stdout.readline() == "locked\n"
    make(tree, tmp_path / "out", shard=prepare.Shard(1, 2))
    with pytest.raises(data.DataError, match="another process"):
      make(tree, tmp_path / "out")
    other.stdin.close()
  make(tree, tmp_path / "out")


@pytest.mark.parametrize("name", ["set.json", "images-00000.json"])
@pytest.mark.parametrize("content", ["[]", "{}", '{"files": [3]}', "no JSON"])
def test_a_foreign_record_is_refused(tmp_path, tree, name, content):
  config, folder = make(tree, tmp_path / "out")
  pathlib.Path(folder, name).write_text(content)
  with pytest.raises(data.DataError, match=name):
    data.open_source(config)
  with pytest.raises(data.DataError, match=name):
    make(tree, tmp_path / "out")


@pytest.mark.parametrize("field", ["num_images", "images_per_file"])
@pytest.mark.parametrize("value", [0, -1, 10**15])
def test_strange_numbers_are_refused(tmp_path, tree, field, value):
  config, folder = make(tree, tmp_path / "out")
  path = pathlib.Path(folder, "set.json")
  record = json.loads(path.read_text())
  path.write_text(json.dumps(record | {field: value}))
  with pytest.raises(data.DataError, match=r"at least 1|complete|damaged"):
    source = data.open_source(config)
    source.images(range(11))


def test_a_missing_set_is_named_with_its_command(tmp_path, tree):
  config, _ = make(tree, tmp_path / "out", crop="random")
  config.crop = "center"
  with pytest.raises(data.DataError) as error:
    data.open_source(config)
  assert "found train_8_3_random_accurate" in str(error.value)
  assert "--config.data.image_size=8" in str(error.value)
  assert "--config.data.crop=center" in str(error.value)


def test_a_missing_folder_is_named(tmp_path):
  config = tiny.data_config(f"prepared:{tmp_path / 'none'}")
  with pytest.raises(data.DataError, match=r"found none .*This command makes"):
    data.open_source(config)


def test_the_decoder_is_that_of_the_preparation(tmp_path, tree):
  config, folder = make(tree, tmp_path / "out")
  assert data.decoder(config) == data.decoder(tiny.data_config(tree))
  path = pathlib.Path(folder, "set.json")
  record = json.loads(path.read_text())
  path.write_text(json.dumps(record | {"decoder": "Pillow 1.0"}))
  assert data.decoder(config) == "Pillow 1.0"


def test_native_images_have_the_prepared_size(tmp_path, tree):
  config, _ = make(tree, tmp_path / "out")
  make(tree, tmp_path / "out", image_size=16)
  assert data.native_size(config) == 16


def command(*arguments):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "hatebm_jax.data.prepare"),
      *(*map(str, arguments), "--config=digits"),
    ],
    cwd=child.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_the_command(tmp_path):
  for _ in range(2):
    process = command("digits", tmp_path / "out")
    out, err = process.communicate()
    assert process.returncode == 0, err
    name = "16_1_center_accurate"
    assert f"train_{name}: 1,437 images, the set is complete." in out
    assert f"test_{name}: 360 images, the set is complete." in out
  assert out.count("1 of 1 files are there and whole.") == 2


def test_hosts_that_start_at_once(tmp_path):
  hosts = [
    command("digits", tmp_path / "out", f"--shard={i}/3") for i in range(3)
  ]
  for host in hosts:
    _, err = host.communicate()
    assert host.returncode == 0, err
  config = tiny.data_config(f"prepared:{tmp_path / 'out'}")
  config.update(image_size=16, channels=1)
  found = data.load_all(data.open_source(config, "test"))
  config.source = "digits"
  expected = data.load_all(data.open_source(config, "test"))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shard", ["1", "2/2", "-1/2", "0/0", "a/b"])
def test_a_wrong_shard_is_refused(shard):
  with pytest.raises(errors.ConfigError, match="--shard: expected I/N"):
    prepare._shard(shard)
