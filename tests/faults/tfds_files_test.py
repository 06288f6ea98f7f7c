"""Prepared TensorFlow data sets that come from strangers or are damaged."""

import json
import shutil
import sys

import numpy as np
import pytest
import tiny

from hatebm_jax import config as config_lib
from hatebm_jax import data

COUNT = 20


def prepare(directory, file_format):
  pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
  tiny.prepare_tfds(directory, pixels, file_format)
  return directory


@pytest.fixture(scope="module", name="prepared")
def prepared_data(tmp_path_factory):
  return prepare(tmp_path_factory.mktemp("prepared"), "tfrecord")


@pytest.fixture(scope="module", name="prepared_records")
def prepared_array_records(tmp_path_factory):
  return prepare(tmp_path_factory.mktemp("prepared_records"), "array_record")


@pytest.fixture(name="folder")
def data_folder(prepared, tmp_path):
  shutil.copytree(prepared, tmp_path / "data")
  return tmp_path / "data" / "tiny" / "1.0.0"


@pytest.fixture(name="records")
def array_record_folder(prepared_records, tmp_path):
  shutil.copytree(prepared_records, tmp_path / "data")
  return tmp_path / "data" / "tiny" / "1.0.0"


def read(folder, name="tiny", cache_gib=1.0):
  """Reads all images of a data set, or streams as many if none is cached."""
  config = config_lib.default().data
  config.source, config.image_size = f"tfds:{name}", 4
  config.data_dir, config.cache_gib = str(folder.parents[1]), cache_gib
  source = data.open_source(config)
  if cache_gib:
    return data.load_all(source)
  stream = data.batches(source, 2, seed=0)
  try:
    return np.concatenate([next(stream) for _ in range(COUNT // 2)])
  finally:
    stream.close()


def change(file, old, new):
  text = file.read_text()
  assert old in text
  file.write_text(text.replace(old, new))


def test_a_whole_data_set_is_read(folder):
  assert len(np.unique(read(folder).reshape(COUNT, -1), axis=0)) == COUNT
  assert read(folder, cache_gib=0.0).shape == (COUNT, 4, 4, 3)


OWN = "tensorflow_datasets.core.features.image_feature.Image"
EVIL = "planted_module.Image"
NESTED = {"type": OWN, "content": json.dumps({"feature": {"type": EVIL}})}


@pytest.mark.parametrize(
  "features",
  [
    {"pythonClassName": EVIL, "image": {}},
    {"python_class_name": EVIL, "image": {}},
    {"type": EVIL, "content": {}},
    NESTED,
    {"pythonClassName": OWN, "json": {"json": json.dumps(NESTED)}},
    {"pythonClassName": "tensorflow_datasets/../planted_module.Image"},
    {"pythonClassName": "tensorflow_datasets_planted.Image", "image": {}},
  ],
)
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_no_module_is_imported(folder, tmp_path, monkeypatch, features, file):
  (tmp_path / "modules").mkdir()
  for name in ("planted_module", "tensorflow_datasets_planted"):
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    (tmp_path / "modules" / f"{name}.py").write_text(code)
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.syspath_prepend(tmp_path / "modules")
  content = json.loads((folder / file).read_text())
  inner = {"features": {"image": features}}
  content["featuresDict" if file == "features.json" else "features"] = inner
  (folder / file).write_text(json.dumps(content))
  with pytest.raises(data.DataError, match="asks for the class"):
    read(folder)
  assert not (tmp_path / "ran").exists()
  assert not {"planted_module", "tensorflow_datasets_planted"} & {*sys.modules}


def test_tfds_would_have_imported_it(folder, tmp_path, monkeypatch):
  import tensorflow_datasets as tfds

  code = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
  (tmp_path / "planted_module.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  change(folder / "features.json", OWN, EVIL)
  with pytest.raises(ValueError, match="Unrecognized FeatureConnector"):
    tfds.builder("tiny", data_dir=str(folder.parents[1]))
  assert (tmp_path / "ran").exists()
  monkeypatch.delitem(sys.modules, "planted_module")


@pytest.mark.parametrize(
  "name", ["huggingface:tiny", "kaggle:tiny", "some-one:tiny/x:1.0.0"]
)
def test_namespaces_are_refused(folder, name):
  with pytest.raises(data.DataError, match="has a namespace"):
    read(folder, name)


def test_a_default_config_elsewhere(folder):
  metadata = folder.parents[0] / ".config" / "metadata.json"
  metadata.parent.mkdir()
  metadata.write_text('{"default_config_name": "../../elsewhere"}')
  with pytest.raises(data.DataError, match="not the name of a config"):
    read(folder)


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
  "content",
  ["", "{", "[]", "7", "null", "{}", '{"a": 1}', "[" * 100_000, "\udcff"],
)
def test_mangled_json(folder, file, content):
  (folder / file).write_bytes(content.encode(errors="surrogateescape"))
  with pytest.raises(data.DataError, match="tiny"):
    read(folder)


@pytest.mark.parametrize(
  "old, new, message",
  [
    (f'"{COUNT}"', '"9999999999999999"', "expected from 1 to"),
    (f'"{COUNT}"', '"-1"', "expected from 1 to|cannot be opened"),
    (f'"{COUNT}"', f'"{COUNT + 1}"', "Cannot read an image"),
    ("{DATASET}-", "../{DATASET}-", "missing|expected all files"),
    ("{DATASET}-", "/etc/{DATASET}-", "missing|expected all files"),
    ('"train"', '"../train"', "cannot be opened|no train images"),
    ('"name": "tiny"', '"name": "other"', "missing|cannot be opened"),
  ],
)
def test_false_entries_in_dataset_info(folder, old, new, message):
  change(folder / "dataset_info.json", old, new)
  with pytest.raises(data.DataError, match=message):
    read(folder)


def test_shards_elsewhere(folder):
  # tensorflow_datasets could read the shard there.
  (shard,) = folder.glob("*.tfrecord*")
  shard.rename(folder.parent / shard.name)
  change(folder / "dataset_info.json", "{DATASET}-", "../{DATASET}-")
  with pytest.raises(data.DataError, match="expected all files in"):
    read(folder)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
@pytest.mark.parametrize("place", [0, 9, 30, -30, -1])
def test_a_flipped_byte_names_the_data_set(folder, place, cache_gib):
  (shard,) = folder.glob("*.tfrecord*")
  content = bytearray(shard.read_bytes())
  content[place] ^= 1
  shard.write_bytes(content)
  with pytest.raises(data.DataError, match=r"tiny, split train.*DataLoss"):
    read(folder, cache_gib=cache_gib)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
@pytest.mark.parametrize("size", [0, 5, 200])
def test_a_shard_that_was_cut(folder, size, cache_gib):
  (shard,) = folder.glob("*.tfrecord*")
  shard.write_bytes(shard.read_bytes()[:size])
  with pytest.raises(data.DataError, match="tfds:tiny, split train"):
    read(folder, cache_gib=cache_gib)


@pytest.mark.parametrize(
  "place",
  [
    200,  # in the header of the first chunk
    30_000,  # in an image
    65_536,  # in the header of a block
    -65_500,  # in the header of the file's last part
  ],
)
def test_a_flipped_byte_of_an_array_record(records, place):
  (shard,) = records.glob("*.array_record*")
  content = bytearray(shard.read_bytes())
  content[place] ^= 1
  shard.write_bytes(content)
  try:
    images = read(records)
  except data.DataError as error:
    assert "tiny, split train" in str(error)
  else:  # Bytes between the chunks have no meaning.
    assert len(np.unique(images.reshape(COUNT, -1), axis=0)) == COUNT


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
@pytest.mark.parametrize("size", [0, 5, 200, 70_000])
def test_an_array_record_that_was_cut(records, size, cache_gib):
  (shard,) = records.glob("*.array_record*")
  shard.write_bytes(shard.read_bytes()[:size])
  with pytest.raises(data.DataError, match="tfds:tiny, split train"):
    read(records, cache_gib=cache_gib)


@pytest.mark.parametrize(
  "old, new, message",
  [
    (f'"{COUNT}"', f'"{COUNT + 1}"', "Cannot read an image"),
    ("{DATASET}-", "../{DATASET}-", "missing|expected all files"),
    ('"array_record"', '"no_such_format"', "cannot be opened"),
    ('"array_record"', '"tfrecord"', "missing|cannot be opened|not prepared"),
  ],
)
def test_false_entries_about_array_records(records, old, new, message):
  change(records / "dataset_info.json", old, new)
  with pytest.raises(data.DataError, match=message):
    read(records)


@pytest.mark.parametrize("option", ["data_dir=/x", "file_format=array_record"])
def test_options_in_a_name_are_refused(folder, option):
  with pytest.raises(data.DataError, match="with the option"):
    read(folder, f"tiny/{option}")


@pytest.mark.parametrize("name", ["w[ab]c", "[0-9]", "x[!y]", "a*b?[c]"])
@pytest.mark.parametrize("level", ["data_dir", "version"])
def test_no_folder_name_hides_a_class(records, tmp_path, name, level):
  change(records / "features.json", OWN, EVIL)
  old = records.parents[1] if level == "data_dir" else records
  old.rename(old.with_name(name))
  directory = tmp_path / (name if level == "data_dir" else "data")
  with pytest.raises(data.DataError, match="asks for the class"):
    read(directory / "tiny" / "any version")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("name", ["v[1]", "all*", "what?"])
def test_a_data_dir_whose_name_looks_like_a_pattern(
  request, tmp_path, name, file_format
):
  fixtures = {"tfrecord": "prepared", "array_record": "prepared_records"}
  prepared = request.getfixturevalue(fixtures[file_format])
  shutil.copytree(prepared, tmp_path / name)
  folder = tmp_path / name / "tiny" / "1.0.0"
  if "[" in name:  # tensorflow_datasets itself cannot read it.
    with pytest.raises(data.DataError, match="takes the characters"):
      read(folder)
  else:
    assert len(np.unique(read(folder).reshape(COUNT, -1), axis=0)) == COUNT
  change(folder / "features.json", OWN, EVIL)
  with pytest.raises(data.DataError, match="asks for the class"):
    read(folder)
