"""Files in a bucket, on real servers on this machine."""

import io
import os
import pathlib
import subprocess
import sys

import child
import fsspec
import image_files
import numpy as np
import pytest
import tiny

from hatebm_jax import config_flag, data, errors
from hatebm_jax.metrics import moments
from hatebm_jax.run import (
  buckets,
  changes,
  files,
  npz,
  sample_files,
  workdir,
)


def test_what_is_written_is_read(bucket_url):
  path = files.as_path(bucket_url)
  assert str(path / "a" / "x") == f"{bucket_url}/a/x" and path.name
  assert not path.exists() and files.entries(path) == []
  files.write_json(path / "a" / "x.json", {"x": [1]}, indent=2)
  assert files.read_json(f"{path}/a/x.json", "", dict) == {"x": [1]}
  files.write_atomic(path / "a" / "x.json", "new")
  assert (path / "a" / "x.json").read_text() == "new"
  assert path.is_dir() and (path / "a").is_dir() and (path / "a").exists()
  assert (path / "a" / "x.json").is_file()
  assert not (path / "a" / "x.json").is_dir() and not (path / "b").exists()
  files.write_atomic(path / "z", b"abc")
  assert files.sha256(path / "z").startswith("ba7816bf8f01cfea")
  assert files.entries(path) == [path / "a", path / "z"]
  assert list(files.all_files(path)) == [path / "a" / "x.json", path / "z"]
  (path / "z").rename(path / "y")
  assert [x.name for x in files.entries(path)] == ["a", "y"]
  files.check_writable(path / "not" / "there")
  (path / "y").unlink()
  (path / "y").unlink(missing_ok=True)
  assert list(files.all_files(path)) == [path / "a" / "x.json"]
  with pytest.raises(FileNotFoundError, match="y is not there"):
    (path / "y").read_bytes()


def test_what_others_write_is_seen(bucket_url):
  path = files.as_path(bucket_url)
  assert not (path / "x").exists() and files.entries(path) == []
  scheme = bucket_url.partition("://")[0]
  other = fsspec.filesystem(scheme, skip_instance_cache=True)
  other.pipe_file(f"{bucket_url}/x", b"theirs")
  assert files.entries(path) == [path / "x"]
  assert (path / "x").read_text() == "theirs"


def test_arrays(bucket_url):
  path = files.as_path(bucket_url)
  record = {"seed": 1}
  images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
  place = sample_files.find(path / "samples", 4, "raw", record)
  assert place.num_images == 0
  sample_files.save(place.path, record, images=images)
  place = sample_files.find(path / "samples", 4, "raw", record)
  assert place.num_images == 4
  np.testing.assert_array_equal(npz.all_arrays(place.path)["images"], images)
  assert sample_files.find(path / "samples", 4, "raw", {}).num_images == 0
  found = moments.compute(np.random.default_rng(0).normal(size=(9, 3)))
  moments.save(path / "moments.npz", found)
  np.testing.assert_array_equal(
    moments.load(f"{path}/moments.npz", 3).covariance, found.covariance
  )
  buffer = io.BytesIO()
  np.save(buffer, images)
  files.write_atomic(path / "x.npy", buffer.getvalue())
  np.testing.assert_array_equal(npz.array(path / "x.npy"), images)
  with pytest.raises(npz.FileError, match="is not there"):
    npz.array(path / "y.npy")
  files.write_atomic(path / "x.npz", b"PK\3\4 damaged")
  with pytest.raises(npz.FileError):
    npz.headers(path / "x.npz")
  with files.local_copy(path / "x.npz") as file:
    assert pathlib.Path(file).read_bytes().endswith(b"damaged")
  assert not os.path.exists(file)


def test_records_of_a_workdir(bucket_url, capsys):
  path = files.as_path(bucket_url)
  workdir.claim(path, tiny.config(), write=True)
  assert workdir.read_config(path).model.width == 8
  files.write_atomic(path / "images" / "00000002_hat.png", b"")
  workdir.claim(path, tiny.config(model__width=16), write=True)
  assert workdir.read_config(path).model.width == 16
  assert not (path / "images").exists()
  changes.record(path, 4, {"hat.learning_rate": (1e-3, 1e-4)})
  assert changes.read(path)[0]["to"] == 1e-4
  assert workdir.read_evaluation(path) is None
  capsys.readouterr()


@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_of_images(bucket_url, tmp_path, split):
  """They are read as local ones are, folder by folder and name by name."""
  names = "train/b/1.png", "train/a/2.png", "train/.x.png", "test/3.png", "4"
  for i, name in enumerate(names):
    for place in (tmp_path, bucket_url):
      content = image_files.encode(image_files.noise(i))
      files.write_atomic(f"{place}/{name}", content)
  found = {}
  for place in (str(tmp_path), bucket_url):
    source = data.open_source(tiny.data_config(f"folder:{place}"), split)
    images = np.stack(list(source.read(range(source.num_images))))
    found[place] = source.name.removeprefix(f"folder:{place}"), images
  local, remote = found.values()
  assert local[0] == remote[0] == f"/{split}"
  np.testing.assert_array_equal(local[1], remote[1])
  config = tiny.data_config(f"folder:{bucket_url}", train_split="train/a")
  assert data.open_source(config, "train").num_images == 1


def test_images_that_are_not_there(bucket_url):
  with pytest.raises(data.DataError, match="found no folder"):
    data.open_source(tiny.data_config(f"folder:{bucket_url}"), "train")
  files.write_atomic(f"{bucket_url}/run/config.json", "{}")
  files.write_atomic(f"{bucket_url}/run/x.png", b"no image")
  with pytest.raises(data.DataError, match="would write its pictures"):
    data.check_workdir(f"folder:{bucket_url}", bucket_url)
  data.check_workdir(f"folder:{bucket_url}", f"{bucket_url}/run2")


def test_a_bucket_that_is_not_there_is_one_message(bucket_url):
  url = f"{bucket_url.partition('://')[0]}://no-such-bucket/run"
  with pytest.raises(buckets.FileError, match="a bucket that can be listed"):
    files.as_path(url)


def test_an_unknown_scheme_is_one_message():
  with pytest.raises(errors.UserError, match=r"expected a local path, gs://"):
    config_flag.arguments(["--workdir=azure://b/x"])
  with pytest.raises(errors.UserError, match="without a bucket"):
    files.as_path("gs:///x")


def test_a_missing_extra_is_one_message(monkeypatch):
  monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
  for scheme, extra in (("gs", "gcs"), ("s3", "s3")):
    with pytest.raises(
      errors.UserError, match=rf"pip install -e '.\[{extra}\]'"
    ):
      files.as_path(f"{scheme}://some/run")


def test_missing_credentials_are_one_message(s3_server, tmp_path):
  result = subprocess.run(
    [
      *(sys.executable, "-m", "hatebm_jax.main", "--config=digits"),
      f"--workdir={s3_server}/run",
    ],
    cwd=child.ROOT,
    env={
      **os.environ,
      "PYTHONPATH": ":".join(sys.path),
      "AWS_ACCESS_KEY_ID": "",
      "AWS_SECRET_ACCESS_KEY": "",
      "AWS_EC2_METADATA_DISABLED": "true",
      "HOME": str(tmp_path),
    },
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  assert result.stderr.count("\n") == 1, result.stderr
  assert result.stderr.startswith("error: s3://bucket: expected a bucket")
  assert "Log in with `aws configure`" in result.stderr
