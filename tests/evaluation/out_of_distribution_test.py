import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import data, errors, pixels, sample, train
from hatebm_jax.evaluation import console, energies, out_of_distribution


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train.train(tiny.config(), path)
  return sample.restore(tiny.config(), path)


def _folder(path, size, num_images=5, split=""):
  (path / split).mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(size)
  for i in range(num_images):
    pixels = rng.integers(0, 256, (size, size + 3), np.uint8)
    Image.fromarray(pixels).save(path / split / f"{i}.png")
  return f"folder:{path}"


def test_both_sides_get_the_lower_resolution(tmp_path):
  # Digits are 8 pixels large, and the hat's images 16.
  config = tiny.config(ood__num_images=20)
  for size, expected in ((64, 8), (4, 4)):
    pair = out_of_distribution.load_pair(
      config, _folder(tmp_path / str(size), size)
    )
    assert pair.resized_to == expected
    assert pair.images_in.shape == (20, 16, 16, 1)
    assert pair.images_out.shape == (5, 16, 16, 1)
  # The in-distribution images went down to 4 pixels and up again, too.
  low = config.data.copy_and_resolve_references()
  low.image_size = 4
  small = data.load_all(data.open_source(low, "test"))
  chosen = np.sort(np.random.default_rng(0).permutation(360)[:20])
  expected = Image.fromarray(small[chosen[0], :, :, 0]).resize(
    (16, 16), Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(pair.images_in[0, :, :, 0], expected)


def test_images_of_the_hats_size_or_more_are_not_enlarged(tmp_path):
  config = tiny.config(data__source=_folder(tmp_path / "in", 20, split="train"))
  _folder(tmp_path / "in", 20, 7, split="test")
  pair = out_of_distribution.load_pair(config, _folder(tmp_path / "out", 30))
  assert pair.resized_to == 16
  expected = data.load_all(data.open_source(config.data, "test"))
  np.testing.assert_array_equal(pair.images_in, expected)


def test_the_test_split_is_taken_where_there_is_one(tmp_path):
  source = _folder(tmp_path / "a", 16, 6, split="train")
  _folder(tmp_path / "a", 16, 4, split="test")
  pair = out_of_distribution.load_pair(tiny.config(), source)
  assert len(pair.images_out) == 4 and pair.names[1].endswith("test")


def test_energy_is_the_hats(restored):
  images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 1), np.uint8)
  (variables, _), hat = restored.variables, restored.networks.hat
  expected = hat.apply(variables, pixels.to_float(images))
  found = energies.compute(restored, images)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_measures_and_draws(restored, tmp_path):
  source = _folder(tmp_path / "out", 16, 12)
  config = restored.config.copy_and_resolve_references()
  config.ood.update({"sets": (source, source), "bootstraps": 10})
  config.ood.num_images = 10
  result, pictures = out_of_distribution.measure(
    restored._replace(config=config)
  )
  (name, found), *_ = result["sets"].items()
  assert name == source and result["in_distribution"] == "digits test"
  assert (found["num_in"], found["num_out"]) == (10, 10)
  assert list(found["scores"]) == [
    "energy",
    "brightness",
    "contrast",
    "total_variation",
    "png_size",
  ]
  # A trivial score tells noise from digits.
  assert found["scores"]["png_size"]["auroc"]["value"] > 0.9
  # There is one panel for each name, and both sources have the same name.
  assert pictures.keys() == {"ood"}
  assert pictures["ood"].shape == (300, 600, 3)
  table = console.table({"sets": {}, "protocol": {}, "ood": result})
  assert "png size 0.9" in table


@pytest.mark.parametrize(
  "field, value, found",
  [
    ("num_images", 0, "expected 1 or more"),
    ("bootstraps", 0, "expected 1 or more"),
  ],
)
def test_settings_are_checked(restored, field, value, found):
  config = restored.config.copy_and_resolve_references().unlock()
  config.ood[field] = value
  with pytest.raises(errors.ConfigError, match=found):
    out_of_distribution.measure(restored._replace(config=config))
