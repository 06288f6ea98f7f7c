"""A path that a user gives is expanded, and never taken for a pattern."""

import pathlib

import numpy as np
import pytest
import tiny
from image_files import encode, noise

from hatebm_jax import config_flag, convert, data
from hatebm_jax.evaluation import given_images
from hatebm_jax.metrics import feature_spaces, moments
from hatebm_jax.objectives.parts import generators
from hatebm_jax.run import npz, workdir


@pytest.fixture(params=["v[1]", "all*", "what?", "[!a]"])
def folder(request, tmp_path, monkeypatch):
  """Makes a folder below HOME; returns its real path and the user's path."""
  monkeypatch.setenv("HOME", str(tmp_path))
  real = tmp_path / request.param
  real.mkdir()
  # A pattern would find these in place of the folder.
  for name in ("v1", "all of it", "whats", "b"):
    (tmp_path / name).mkdir()
  return real, f"~/{request.param}"


def test_images(folder):
  real, given = folder
  (real / "a[0].png").write_bytes(encode(noise()))
  source = data.open_source(tiny.data_config(f"folder:{given}"))
  np.testing.assert_array_equal(data.load_all(source)[0], noise())


def test_statistics_of_reference_images(folder):
  real, given = folder
  npz.save(real / "s*.npz", mu=np.zeros(2), sigma=np.eye(2))
  found = moments.load(f"{given}/s*.npz", 2)
  np.testing.assert_array_equal(found.covariance, np.eye(2))
  npz.save(real / "s1.npz", mu=np.ones(2), sigma=np.eye(2))
  found = moments.load(f"{given}/s*.npz", 2)
  assert not found.mean.any()


def test_given_samples(folder):
  real, given = folder
  config = tiny.config(data__channels=3)
  for name in ("x[1].npz", "pngs[1]"):
    config.metrics.samples = f"{given}/{name}"
    if name.endswith("npz"):
      npz.save(real / name, images=noise()[None])
    else:
      (real / name).mkdir()
      (real / name / "0.png").write_bytes(encode(noise()))
    images = given_images.read(config).images
    np.testing.assert_array_equal(images[0], noise())


def test_weights_of_the_inception_network(folder):
  real, given = folder
  (real / "w[1].npz").write_text("no weights")
  # It is found, and not what it should be.
  with pytest.raises(convert.ConvertError, match=r"w.1..npz"):
    feature_spaces.choose("folder:x", (32, 32, 3), f"{given}/w[1].npz")


def test_the_generator_of_another_run(folder):
  real, given = folder
  (real / "g[1].npz").write_text("no weights")
  config = tiny.config("digits_refine")
  made = generators.make(config)
  config.generator.source = f"{given}/g[1].npz"
  with pytest.raises(convert.ConvertError, match=r"g.1..npz"):
    generators.load(config, *made)
  config.generator.source = given
  with pytest.raises(workdir.WorkdirError, match="holds no run"):
    generators.load(config, *made)


def test_the_config_of_a_workdir(folder):
  real, given = folder
  config = tiny.config()
  config.seed = 7
  (real / "config.json").write_text(config.to_json())
  assert config_flag.get_config(given).seed == 7


def test_the_file_of_a_config(folder):
  real, given = folder
  (real / "own[1].py").touch()
  path = pathlib.Path(config_flag.find(f"{given}/own[1].py"))
  assert path == real / "own[1].py"
