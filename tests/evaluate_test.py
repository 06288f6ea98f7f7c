import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import data, errors, evaluate, sample


@pytest.fixture
def folder(tmp_path):
  """Colour images of 32 pixels: 40 to train on."""
  rng = np.random.default_rng(0)
  (tmp_path / "train").mkdir()
  for i in range(40):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "train" / f"{i}.png")
  return tmp_path


def _colour(folder):
  return tiny.config(
    data__source=f"folder:{folder}", data__image_size=32, data__channels=3
  )


def test_measures_digits():
  config = tiny.config()
  train = data.load_all(data.open_source(config.data, "train"))
  noise = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), np.uint8)
  result = evaluate.measure(config, {"hat": noise, "generator": train})
  hat, generator, held_out = (
    result["sets"][name] for name in ("hat", "generator", "held_out")
  )
  assert result["num_reference"] == 1437
  assert [x["num_images"] for x in (hat, generator, held_out)] == [
    50,
    1437,
    360,
  ]
  assert hat["recognised"] == 0 and held_out["recognised"] > 0.85
  # The set itself, far less than other digits, far less than noise.
  assert generator["fd_digits"] < 1e-6
  assert 1 < held_out["fd_digits"] < 10 < 100 < hat["fd_digits"]
  table = evaluate.table(result)
  assert "FD-digits" in table and "hat samples" in table
  assert len(table.splitlines()) == 2 + 1 + 3


def test_measures_colour_images_without_a_test_split(folder):
  config = _colour(folder)
  train = data.load_all(data.open_source(config.data, "train"))
  darker = (train * 0.5).astype(np.uint8)
  result = evaluate.measure(config, {"hat": darker, "generator": train})
  assert set(result["sets"]) == {"hat", "generator"}
  distances = [x["fd_resnet10"] for x in result["sets"].values()]
  assert distances[1] < 1e-9 < 0.01 < distances[0]
  assert "FD-ResNet10" in evaluate.table(result)


def test_held_out_images_stand_beside(folder):
  (folder / "test").mkdir()
  for file in list((folder / "train").iterdir())[:15]:
    file.rename(folder / "test" / file.name)
  images = np.zeros((3, 32, 32, 3), np.uint8)
  result = evaluate.measure(_colour(folder), {"generator": images})
  assert result["num_reference"] == 25
  assert result["sets"]["held_out"]["num_images"] == 15


@pytest.mark.parametrize(
  "size, channels, expected", [(32, 3, True), (32, 1, False), (64, 3, False)]
)
def test_what_can_be_measured(size, channels, expected):
  config = tiny.config(data__image_size=size, data__channels=channels)
  config.data.source = "folder:images"
  assert evaluate.has_measure(config) == expected


def test_one_image_cannot_be_measured(tmp_path):
  restored = sample.Restored(tiny.config(), 1, None, (None, None), None, None)
  image = np.zeros((1, 16, 16, 1), np.uint8)
  with pytest.raises(errors.ConfigError, match="num_images=1: expected 2"):
    evaluate.write(restored, tmp_path, sample.Drawn(image, image))
