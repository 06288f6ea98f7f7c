"""The protocol of the paper sets what the published figures need."""

import importlib
import json

import jax
import memory
import numpy as np
import pytest
import tiny

from hatebm_jax import config as config_lib
from hatebm_jax import data, errors, evaluation, sample, train
from hatebm_jax.evaluation import gathering, image_quality, preset
from hatebm_jax.metrics import digits_network, feature_spaces


def published(name, **overrides):
  config = importlib.import_module(f"hatebm_jax.configs.{name}").get_config()
  for field, value in overrides.items():
    config_lib.put(config, field.replace("__", "."), value)
  return config


def test_quick_sets_nothing():
  config = published("cifar10_refine", evaluate__num_steps=20)
  assert preset.apply(config) is config


@pytest.mark.parametrize(
  "name", ["cifar10", "cifar10_refine", "celeba64_refine", "cifar10_retrofit"]
)
def test_the_paper_sets_the_published_chains_and_counts(name):
  config = published(
    name,
    metrics__protocol="paper",
    metrics__split="test",
    sample__weights="averaged",
    evaluate__num_steps=3,
    evaluate__tau=1.0,
    evaluate__temperature=1.0,
    evaluate__max_drift_y=2.5,
    evaluate__init_scale_y=0.5,
  )
  found = preset.apply(config)
  assert found.evaluate == published(name).evaluate
  assert found.sample.num_images == found.metrics.num_references == 49_920
  assert found.metrics.split == "train" and found.sample.weights == "raw"
  assert found.metrics.repeats == 3
  config_lib.check(found)
  assert config.evaluate.num_steps == 3  # The argument stays as it is.
  line = preset.changes(config, found)
  assert "config.metrics.split test -> train" in line
  assert "config.evaluate.num_steps 3 -> " in line


def test_other_runs_keep_their_chains_and_repeats_may_be_more():
  config = tiny.config(metrics__protocol="paper", metrics__repeats=5)
  found = preset.apply(config)
  assert found.evaluate == config.evaluate and found.metrics.repeats == 5
  assert found.metrics.num_references == 49_920


def test_runs_of_plus_configs_keep_their_chains_and_weights():
  found = preset.apply(published("cifar10_plus", metrics__protocol="paper"))
  assert found.evaluate.num_steps == 100
  assert found.sample.weights == "averaged"
  assert found.sample.num_images == 49_920


def test_statistics_are_no_reference_of_the_paper():
  config = tiny.config(metrics__protocol="paper", metrics__statistics="x.npz")
  with pytest.raises(errors.ConfigError, match="Leave one of them out"):
    evaluation.check(config)


@pytest.mark.parametrize("inception", ["", "none.pth"])
def test_missing_weights_are_said_before_anything_is_trained(inception):
  # At 64 pixels nothing is measured after training without such weights.
  config = tiny.config(
    metrics__protocol="paper",
    metrics__inception=inception,
    data__source="folder:none",
    data__image_size=64,
    data__channels=3,
  )
  assert evaluation.has_network(config)
  with pytest.raises(errors.ConfigError, match="weights of the Inception"):
    evaluation.check(config)


@pytest.mark.slow
def test_each_repeat_may_have_references_of_its_own():
  config = tiny.config(metrics__num_references=100)
  digits = data.load_all(data.open_source(config.data, "train"))
  first = image_quality.load_reference(config)
  third = image_quality.other_reference(config, first, 2)
  assert third.found.judge is first.found.judge
  for repeat, reference in ((0, first), (2, third)):
    found = reference.found.moments
    order = np.random.default_rng(repeat).permutation(len(digits))
    features = digits_network.features(digits[np.sort(order[:100])])
    np.testing.assert_allclose(found.mean, features.mean(0), atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns the workdir of a trained run on digits."""
  path = tmp_path_factory.mktemp("run")
  train.train(tiny.config(train__num_steps=1), path)
  return path


@pytest.mark.slow
def test_an_evaluation_by_the_paper_draws_all_anew(run, capsys, monkeypatch):
  """Everything but Inception is real: it takes colour images, not digits."""
  monkeypatch.setattr(preset, "NUM_IMAGES", 20)
  choose = lambda config: feature_spaces.choose("digits", (16, 16, 1))
  monkeypatch.setattr(image_quality, "choose_space", choose)
  config = tiny.config(
    metrics__protocol="paper", chains__num_chains=0, train__num_steps=1
  )
  restored = sample.restore(config, run)
  quick = sample.draw(restored)  # 12 images
  found = evaluation.evaluate(restored, quick).figures
  assert "config.metrics.num_references None -> 20" in capsys.readouterr().out
  protocol = found["protocol"]
  assert protocol["preset"] == "paper" and protocol["repeats"] == 3
  assert protocol["num_images"] == protocol["num_reference"] == 20
  assert protocol["references"] == "new in each repeat"
  values = found["sets"]["hat"]["frechet_distance"]["values"]
  # The third repeat: its own images against its own references.
  restored = restored._replace(config=preset.apply(restored.config))
  images = sample.draw(restored, repeat=2).samples
  reference = image_quality.other_reference(
    restored.config, image_quality.load_reference(restored.config), 2
  )
  assert reference.distance(images) == values[2]
  assert len(set(values)) == 3
  json.dumps(found, allow_nan=False)


def test_images_that_are_drawn_do_not_stay_in_memory(monkeypatch):
  """600 images of 128 pixels are 29 MB, and two sets of them 59 MB."""
  monkeypatch.setattr(gathering, "_MAX_IMAGE_BYTES", 2**20)
  rng = np.random.default_rng(0)

  @jax.jit
  def outputs(images):
    features = images.reshape(len(images), 8, 16, 8, 16, 3).mean((2, 4))
    return features.reshape(len(images), -1)[:, :8], features[:, 0, 0]

  space = feature_spaces.Space("FD-digits", 8, outputs, None, 50)

  def draw():
    for _ in range(20):
      noise = rng.integers(0, 256, (30, 128, 128, 3), np.uint8)
      yield {"hat": noise, "generator": noise // 2}

  reference = gathering.Gathered(space, 600)
  for batch in draw():
    reference.add(batch["hat"])
  found = reference.sample()
  assert len(found.images) == 21  # of 49,152 bytes each
  reference = image_quality.Reference(
    space, image_quality.metric.Reference("FD-digits", *found[1:3]), {}
  )
  # The first figures import what they need.
  image_quality.measure_batches(reference, draw(), 600)
  with memory.claims_less_than(30e6):
    figures = image_quality.measure_batches(reference, draw(), 600)
  assert figures["hat"]["frechet_distance"] < 5
  assert figures["generator"]["frechet_distance"] > 100
