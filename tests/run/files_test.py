import os
import pathlib

import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image

from hatebm_jax import evaluation, report, sample, train
from hatebm_jax.run import checkpoint, files, npz, weights, workdir

# Each holds what `glob` or a URL would read as something else.
STRANGE = ["v[1]", "a*b?", "[!x]", "50%20 #1"]


def test_paths_are_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", "/home/someone")
  assert files.as_path("runs/x") == tmp_path / "runs" / "x"
  assert files.as_path(pathlib.Path("y")) == tmp_path / "y"
  assert files.as_path("~/x") == pathlib.Path("/home/someone/x")
  found = files.as_path(files.as_path("z"))
  assert isinstance(found, epath.Path) and os.fspath(found) == f"{tmp_path}/z"


def test_an_empty_path_is_refused():
  with pytest.raises(files.FileError, match="found an empty one"):
    files.as_path("")


@pytest.mark.parametrize(
  "path",
  ["foo://x", "file:///x", "az://b/x", pathlib.Path("gs://b"), "/gs"],
)
def test_unknown_urls_are_refused(path):
  with pytest.raises(files.FileError, match="bucket or another URL"):
    files.as_path(path)


@pytest.mark.parametrize("name", STRANGE)
def test_a_name_is_no_pattern(tmp_path, name):
  folder = files.as_path(tmp_path / name)
  for other in ("v1", "aXbX"):
    files.write_atomic(tmp_path / other / "x.txt", "wrong")
  files.write_atomic(folder / "x.txt", "right")
  files.write_atomic(folder / "sub" / "x.txt", "right")
  assert list(folder.glob("*.txt")) == [tmp_path / name / "x.txt"]
  assert list(folder.glob("sub/*")) == [tmp_path / name / "sub" / "x.txt"]
  assert files.entries(folder) == [folder / "sub", folder / "x.txt"]
  assert list(files.all_files(folder)) == [
    folder / "sub" / "x.txt",
    folder / "x.txt",
  ]
  assert files.entries(tmp_path / "missing") == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / "x"
  files.write_atomic(path, "old")
  with pytest.raises(TypeError):
    files.write_atomic(path, 5)
  assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_is_written_is_read(tmp_path):
  files.write_json(tmp_path / "a" / "x.json", {"x": [1]}, indent=2)
  assert files.read_json(tmp_path / "a" / "x.json", "", dict) == {"x": [1]}
  for line in ("one", "two"):
    files.append_line(tmp_path / "lines", line)
  assert (tmp_path / "lines").read_text() == "one\ntwo\n"
  (tmp_path / "x").write_bytes(b"abc")
  assert files.sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")
  npz.save(tmp_path / "b" / "x.npz", x=np.arange(3))
  np.testing.assert_array_equal(
    npz.all_arrays(tmp_path / "b" / "x.npz")["x"], np.arange(3)
  )
  picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  files.write_png(tmp_path / "c" / "x.png", picture)
  with Image.open(tmp_path / "c" / "x.png") as found:
    np.testing.assert_array_equal(np.asarray(found), picture)


@pytest.mark.slow
def test_a_run_in_a_folder_with_a_strange_name(tmp_path):
  """It trains, resumes, samples, evaluates and reports as any other does."""
  path = tmp_path / "v[1]*"
  config = tiny.config(train__num_steps=2, chains__num_chains=0)
  assert train.train(config, path) is None
  config.train.num_steps = 4
  assert train.train(config, path) is None
  assert [line["step"] for line in workdir.read_metrics(path)] == [1, 2, 3, 4]
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    assert saved.steps() == [2, 4] and saved.newest_whole() == 4
  restored = sample.restore(config, path)
  drawn = sample.draw(restored)
  sample.write(restored, path, drawn)
  evaluation.write(evaluation.evaluate(restored, drawn), path)
  assert report.write(path).read_text().count("data:image/png") > 6
  found = npz.arrays(path / "samples" / "00000004_raw.npz", ["images"])
  np.testing.assert_array_equal(found["images"], drawn.samples)
  assert set(workdir.read_evaluation(path)["sets"]) > {"hat", "generator"}
  # Another run takes its generator from there.
  part = {"params": {"head": {"kernel": np.zeros((8, 1), np.float32)}}}
  found = weights.restore_part(path, {"hat": part})
  np.testing.assert_array_equal(
    found["hat"]["params"]["head"]["kernel"],
    restored.variables[0]["head"]["kernel"],
  )


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
  files.check_writable(tmp_path / "not" / "there")
  files.check_writable(tmp_path)
  assert not list(tmp_path.iterdir())
  (tmp_path / "file").write_text("")
  for name in ("file", "file/run"):
    with pytest.raises(files.FileError, match="that can be written to"):
      files.check_writable(tmp_path / name)
  # Nobody can write into this folder, not even root.
  with pytest.raises(files.FileError, match="/proc"):
    files.check_writable("/proc/self/run")
