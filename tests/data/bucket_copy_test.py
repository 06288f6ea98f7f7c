"""Prepared images in a bucket, on real servers on this machine."""

import os
import pathlib
import signal
import subprocess
import sys

import child
import numpy as np
import pytest
import tiny
from image_files import write_tree

from hatebm_jax import check, data
from hatebm_jax.data import bucket_copy, prepare
from hatebm_jax.run import files

SET = "train_8_3_center_accurate"


@pytest.fixture
def tree(tmp_path):
  """A folder of 11 images of every format, as a source."""
  write_tree(tmp_path / "images")
  return f"folder:{tmp_path / 'images'}"


def make(tree, out, **kwargs):
  config = tiny.data_config(tree)
  prepare.prepare(config, "train", str(out), images_per_file=4, **kwargs)


def config_of(bucket_url, tmp_path):
  return tiny.data_config(
    f"prepared:{bucket_url}", cache_dir=str(tmp_path / "cache"), cache_gib=0.0
  )


def copies(tmp_path, bucket_url):
  """Returns the local folder of the copies."""
  return tmp_path / "cache" / bucket_url.replace("://", "/") / SET


def contents(folder):
  found = files.all_files(folder)
  return {x.name: x.read_bytes() for x in found if x.name != "lock"}


def test_a_set_in_a_bucket_is_that_of_a_folder(bucket_url, tmp_path, tree):
  make(tree, tmp_path / "out")
  make(tree, bucket_url, shard=prepare.Shard(1, 2))
  config = config_of(bucket_url, tmp_path)
  with pytest.raises(data.DataError, match="3 files of images, found 1"):
    data.open_source(config)
  make(tree, bucket_url)
  assert contents(f"{bucket_url}/{SET}") == contents(tmp_path / "out" / SET)
  source = data.open_source(config)
  local = data.open_source(tiny.data_config(f"prepared:{tmp_path / 'out'}"))
  assert source.to_copy > 11 * 8 * 8 * 3 and local.to_copy == 0
  assert not copies(tmp_path, bucket_url).exists()
  batch = dict(batch_size=6, seed=1)
  expected = tiny.take(local, 4, **batch)
  np.testing.assert_array_equal(tiny.take(source, 4, **batch), expected)
  # The second start copies nothing.
  times = {
    x: x.stat().st_mtime_ns for x in copies(tmp_path, bucket_url).iterdir()
  }
  again = data.open_source(config)
  assert again.to_copy == 0
  np.testing.assert_array_equal(tiny.take(again, 4, **batch), expected)
  del times[copies(tmp_path, bucket_url) / "lock"]
  assert all(path.stat().st_mtime_ns == x for path, x in times.items())


def test_a_folder_that_was_uploaded(bucket_url, tmp_path, tree):
  make(tree, tmp_path / "out")
  files.upload_all(tmp_path / "out", files.as_path(bucket_url))
  config = config_of(bucket_url, tmp_path)
  found = data.load_all(data.open_source(config))
  expected = data.load_all(data.open_source(tiny.data_config(tree)))
  np.testing.assert_array_equal(found, expected)
  numbers, names = data.classes(config, "train")
  expected_numbers, expected_names = data.classes(
    tiny.data_config(tree), "train"
  )
  np.testing.assert_array_equal(numbers, expected_numbers)
  assert names == expected_names
  assert data.decoder(config) == data.decoder(tiny.data_config(tree))


def test_a_set_that_changed_is_copied_anew(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  data.load_all(data.open_source(config))
  (files.as_path(bucket_url) / SET).rmtree()
  write_tree(tmp_path / "images" / "more")
  make(tree, bucket_url)
  found = data.load_all(data.open_source(config))
  expected = data.load_all(data.open_source(tiny.data_config(tree)))
  assert len(found) == 22
  np.testing.assert_array_equal(found, expected)


def test_damage_in_the_bucket_is_found_and_mended(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  path = files.as_path(f"{bucket_url}/{SET}/images-00001.array_record")
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  config = config_of(bucket_url, tmp_path)
  with pytest.raises(data.DataError, match="Delete this file"):
    data.load_all(data.open_source(config))
  path.unlink()
  with pytest.raises(data.DataError, match="found no file"):
    data.open_source(config)
  make(tree, bucket_url)
  assert path.read_bytes() == content
  data.load_all(data.open_source(config))


def test_a_damaged_copy_is_named(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  data.load_all(data.open_source(config))
  file = copies(tmp_path, bucket_url) / "images-00001.array_record"
  content = bytearray(file.read_bytes())
  content[100] ^= 1
  content[-100] ^= 1
  file.write_bytes(content[:500] + bytes(len(content) - 500))
  with pytest.raises(data.DataError, match="Delete this copy"):
    data.load_all(data.open_source(config))
  os.truncate(file, 40)  # Another size is seen, and the file copied again.
  data.load_all(data.open_source(config))


READ = """
import json, sys
import ml_collections
from hatebm_jax import data
config = ml_collections.ConfigDict(json.loads(sys.argv[1]))
print(data.load_all(data.open_source(config)).sum())
"""


def test_processes_of_a_host_share_a_copy(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", READ, config.to_json()],
      cwd=child.ROOT,
      env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  outputs = [x.communicate() for x in processes]
  expected = data.load_all(data.open_source(tiny.data_config(tree))).sum()
  assert [int(out) for out, _ in outputs] == [expected] * 2, outputs
  # One of the two has copied, and shows how far it is.
  assert sum("copying" in err for _, err in outputs) == 1


KILLED = """
import json, os, pathlib, signal, sys
import ml_collections
from hatebm_jax import data
from hatebm_jax.data import bucket_copy
config = ml_collections.ConfigDict(json.loads(sys.argv[1]))
download = bucket_copy.buckets.download

def download_or_die(path, file):
  if path.name == "images-00001.array_record":
    pathlib.Path(file).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
  download(path, file)

bucket_copy.buckets.download = download_or_die
bucket_copy._NUM_THREADS = 1
data.load_all(data.open_source(config))
"""


def test_a_killed_copy_goes_on(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  all_bytes = data.open_source(config).to_copy
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, config.to_json()],
    cwd=child.ROOT,
    env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    capture_output=True,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  source = data.open_source(config)
  assert 0 < source.to_copy < all_bytes
  expected = data.load_all(data.open_source(tiny.data_config(tree)))
  np.testing.assert_array_equal(data.load_all(source), expected)


def test_no_room_is_one_message(bucket_url, tmp_path, tree, monkeypatch):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  full = bucket_copy.shutil.disk_usage(tmp_path)._replace(free=100)
  monkeypatch.setattr(bucket_copy.shutil, "disk_usage", lambda _: full)
  with pytest.raises(data.DataError, match=r"Expected room for .*cache_dir="):
    data.open_source(config)


def test_a_cache_in_a_bucket_is_refused(bucket_url, tmp_path, tree):
  make(tree, bucket_url)
  config = config_of(bucket_url, tmp_path)
  config.cache_dir = f"{bucket_url}/cache"
  with pytest.raises(data.DataError, match="cache_dir: expected a local"):
    data.open_source(config)


def test_a_check_copies_nothing(bucket_url, tmp_path, tree, capsys):
  config = tiny.config(
    data__source=f"prepared:{bucket_url}",
    data__image_size=16,
    data__channels=3,
    data__cache_dir=str(tmp_path / "cache"),
  )
  made = tiny.config(
    data__source=tree, data__image_size=16, data__channels=3
  ).data
  prepare.prepare(made, "train", bucket_url)
  check.check(config, tmp_path / "run")
  assert "11 images, 0.0 GB to copy to each host" in capsys.readouterr().out
  assert not pathlib.Path(tmp_path, "cache").exists()
