"""What an evaluation lacks is said before anything is trained or drawn."""

import numpy as np
import pth
import pytest
import tiny
from PIL import Image

from hatebm_jax import data, errors, evaluation
from hatebm_jax.metrics import moments


@pytest.fixture(name="folder")
def folder_of_images(tmp_path):
  """Returns a folder of 9 colour images without splits, 32 pixels large."""
  rng = np.random.default_rng(0)
  (tmp_path / "images").mkdir()
  for i in range(9):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
  return tmp_path / "images"


def colour(folder, **overrides):
  return tiny.config(
    data__source=f"folder:{folder}",
    data__image_size=32,
    data__channels=3,
    **overrides,
  )


def test_what_is_there_passes(folder, tmp_path):
  evaluation.check(tiny.config())
  evaluation.check(tiny.config(ood__sets=(f"folder:{folder}",)))
  evaluation.check(colour(folder, metrics__num_references=9))
  moments.save(tmp_path / "x.npz", moments.compute(np.eye(64)))
  evaluation.check(tiny.config(metrics__statistics=str(tmp_path / "x.npz")))


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"sample__num_images": 1}, "config.sample.num_images: expected 2 or more"),
    ({"metrics__num_references": 1438}, "num_references=1438.*2 to 1437"),
    ({"metrics__statistics": "none.npz"}, "'none.npz': expected an .npz"),
    ({"metrics__inception": "x.pth"}, "expected colour images"),
    ({"ood__sets": ("digits", "folder:none")}, "'folder:none'.*no folder"),
    ({"ood__sets": ("digits",), "ood__bootstraps": 0}, "bootstraps"),
  ],
)
def test_digits(overrides, message):
  with pytest.raises(errors.UserError, match=message):
    evaluation.check(tiny.config(**overrides))


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"metrics__num_references": 10}, "num_references=10: expected 2 to 9"),
    ({"metrics__split": "test"}, "no test images"),
    ({"metrics__inception": "none.pth"}, "found no file"),
    ({"ood__sets": ("digits",)}, "no test images"),
  ],
)
def test_folder(folder, overrides, message):
  with pytest.raises(errors.UserError, match=message):
    evaluation.check(colour(folder, **overrides))


def test_statistics_of_another_network(tmp_path):
  moments.save(tmp_path / "x.npz", moments.compute(np.eye(9)))
  config = tiny.config(metrics__statistics=str(tmp_path / "x.npz"))
  with pytest.raises(errors.ConfigError, match="belong to another network"):
    evaluation.check(config)


def test_inception_file_of_another_network(folder, tmp_path):
  content = pth.dictionary(fc=pth.tensor(1, 0, (1,), (1,)))
  path = pth.write(tmp_path / "x.pth", content, data_0=bytes(4))
  with pytest.raises(errors.UserError, match=r"x\.pth: .* is missing"):
    evaluation.check(colour(folder, metrics__inception=str(path)))


def test_a_set_whose_images_cannot_be_read(tmp_path):
  (tmp_path / "0.png").write_bytes(b"no image")
  config = tiny.config(ood__sets=(f"folder:{tmp_path}",))
  with pytest.raises(data.DataError, match=r"config\.ood\.sets: .folder:"):
    evaluation.check(config)


def test_chains_need_the_training_images():
  config = tiny.config(data__source="folder:none", chains__num_chains=2)
  with pytest.raises(data.DataError, match="none"):
    evaluation.check(config, has_hat=True)


def test_a_run_without_a_hat():
  config = tiny.config("digits_sngan", ood__sets=("folder:none",))
  evaluation.check(config)  # It has no energy, so the sets are not looked at.
  config.data.source = "folder:none"
  with pytest.raises(errors.ConfigError, match=r"metrics\.inception=FILE"):
    evaluation.check(config, has_hat=False)
