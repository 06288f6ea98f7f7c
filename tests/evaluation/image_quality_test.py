import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import data, errors
from hatebm_jax.evaluation import console, image_quality
from hatebm_jax.metrics import batches, moments, resnet10


@pytest.fixture
def folder(tmp_path):
  """Returns a folder of 40 training images in colour, 32 pixels large."""
  rng = np.random.default_rng(0)
  (tmp_path / "train").mkdir()
  for i in range(40):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "train" / f"{i:02d}.png")
  return tmp_path


def _colour(folder, **overrides):
  return tiny.config(
    data__source=f"folder:{folder}",
    data__image_size=32,
    data__channels=3,
    **overrides,
  )


def test_digits():
  config = tiny.config()
  train = data.load_all(data.open_source(config.data, "train"))
  noise = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), np.uint8)
  result = image_quality.measure_sets(
    config, {"hat": [noise], "generator": [train]}
  )
  means = {
    name: {k: v["mean"] for k, v in figures.items() if k != "num_images"}
    for name, figures in result["sets"].items()
  }
  hat, generator, held_out = means["hat"], means["generator"], means["held_out"]
  assert result["protocol"]["num_reference"] == 1437
  assert hat["recognised"] == 0 and held_out["recognised"] > 0.85
  # The set itself is nearest. Other digits are nearer than noise.
  distances = [x["frechet_distance"] for x in (generator, held_out, hat)]
  assert distances[0] < 1e-6 and 1 < distances[1] < 10 < 100 < distances[2]
  assert generator["precision"] == generator["recall"] == 1
  assert hat["coverage"] < 0.1 < 0.9 < held_out["coverage"]


def test_colour_images_without_a_test_split(folder):
  config = _colour(folder)
  train = data.load_all(data.open_source(config.data, "train"))
  darker = (train * 0.5).astype(np.uint8)
  result = image_quality.measure_sets(
    config, {"hat": [darker], "generator": [train]}
  )
  assert set(result["sets"]) == {"hat", "generator"}
  distances = [x["frechet_distance"]["mean"] for x in result["sets"].values()]
  assert distances[1] < 1e-9 < 0.01 < distances[0]
  assert result["protocol"]["network"] == "FD-ResNet10"


def test_held_out_images_stand_beside(folder):
  (folder / "test").mkdir()
  for file in list((folder / "train").iterdir())[:15]:
    file.rename(folder / "test" / file.name)
  images = np.zeros((3, 32, 32, 3), np.uint8)
  result = image_quality.measure_sets(_colour(folder), {"generator": [images]})
  assert result["protocol"]["num_reference"] == 25
  assert result["sets"]["held_out"]["num_images"] == 15


def test_held_out_images_are_no_reference_images():
  config = tiny.config(metrics__split="test", metrics__num_references=300)
  test = data.load_all(data.open_source(config.data, "test"))
  others = np.random.default_rng(0).permutation(360)[300:]
  found = image_quality.measure_sets(config, {"hat": [test[others]]})["sets"]
  assert found["held_out"]["num_images"] == 60
  for name in ("frechet_distance", "recall"):
    held_out, expected = (found[x][name]["mean"] for x in ("held_out", "hat"))
    np.testing.assert_allclose(held_out, expected, rtol=1e-6)


def test_without_images_that_are_left_none_are_held_out():
  config = tiny.config(metrics__split="test")
  images = np.zeros((3, 16, 16, 1), np.uint8)
  found = image_quality.measure_sets(config, {"generator": [images]})
  assert set(found["sets"]) == {"generator"}


def test_held_out_images_are_as_many_as_the_samples(monkeypatch):
  monkeypatch.setattr(image_quality, "_LEAST_HELD_OUT", 20)
  images = np.zeros((3, 16, 16, 1), np.uint8)
  for num_images, expected in ((10, 20), (30, 30), (1_000, 360)):
    config = tiny.config(sample__num_images=num_images)
    found = image_quality.measure_sets(config, {"generator": [images]})
    assert found["sets"]["held_out"]["num_images"] == expected


def test_the_table_says_where_sets_have_other_sizes():
  config = tiny.config()
  digits = data.load_all(data.open_source(config.data, "train"))
  reference = image_quality.load_reference(config)
  for num_images, told in ((50, True), (360, False)):
    sets = {"generator": [digits[:num_images]]}
    found = image_quality.measure_sets(config, sets, reference)
    last = console.table(found).splitlines()[-1]
    assert ("of the 360 held-out images compares only" in last) == told


def test_the_reference_may_be_a_part_of_the_split(folder):
  config = _colour(folder, metrics__num_references=30)
  reference = image_quality.load_reference(config)
  assert reference.protocol["num_reference"] == 30
  chosen = np.sort(np.random.default_rng(0).permutation(40)[:30])
  images = data.load_all(data.open_source(config.data, "train"))[chosen]
  expected = moments.compute(resnet10.features(images))
  np.testing.assert_allclose(
    reference.found.moments.covariance, expected.covariance, atol=1e-8
  )
  with pytest.raises(errors.ConfigError, match=r"num_references=50.*2 to 40"):
    image_quality.load_reference(_colour(folder, metrics__num_references=50))


def test_features_stream_over_eight_devices():
  images = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), np.uint8)
  seen = []

  def outputs(batch):
    seen.append((batch.shape, len(batch.sharding.device_set)))
    return resnet10.outputs(batch)

  # On eight devices a batch of ten becomes sixteen; the last one is padded.
  parts = batches.stream(outputs, np.split(images, [10, 20]), 10)
  features = np.concatenate([features for features, _ in parts])
  assert seen == [((16, 32, 32, 3), 8)] * 3
  np.testing.assert_allclose(features, resnet10.features(images), atol=1e-5)


@pytest.mark.parametrize(
  "size, channels, expected", [(32, 3, True), (32, 1, False), (64, 3, False)]
)
def test_what_can_be_measured_without_weights(size, channels, expected):
  config = tiny.config(data__image_size=size, data__channels=channels)
  config.data.source = "folder:images"
  assert image_quality.has_network(config) == expected
  if not expected:
    with pytest.raises(errors.ConfigError, match=r"metrics\.inception=FILE"):
      image_quality.choose_space(config)


def test_weights_that_cannot_be_used_are_named(tmp_path):
  config = tiny.config(metrics__inception=str(tmp_path / "none.pth"))
  with pytest.raises(errors.ConfigError, match="expected colour images"):
    image_quality.choose_space(config)
  config.data.channels = 3
  with pytest.raises(errors.ConfigError, match="releases of"):
    image_quality.choose_space(config)
