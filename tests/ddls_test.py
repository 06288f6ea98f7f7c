"""DDLS of an SN-GAN run by its config, in sampling, evaluation and releases."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny

from experiments import ddls_search
from hatebm_jax import (
  chains,
  errors,
  evaluation,
  pixels,
  release,
  sample,
  sharding,
  train,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import sngan

DDLS = {"ddls__num_steps": 5, "ddls__step_size": 0.5}


def config(**overrides):
  return tiny.config("digits_sngan", **overrides)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("sngan")
  train.train(config(), path)
  return path


@pytest.fixture(scope="module")
def restored(path):
  return sample.restore(config(**DDLS), path)


@pytest.fixture(scope="module")
def drawn(restored):
  return sample.draw(restored)


def on_one_device(restored):
  """Returns a run that draws on one device, in batches of all its images."""
  device = jax.devices()[0]
  move = functools.partial(jax.device_put, device=device)
  return restored._replace(
    mesh=sharding.make_mesh([device]),
    variables=move(restored.variables),
    discriminator_variables=move(restored.discriminator_variables),
  )


@pytest.mark.parametrize(
  "weights", [pytest.param("raw", marks=pytest.mark.slow), "averaged"]
)
def test_samples_are_those_of_chains_by_hand(path, weights):
  settings = config(sample__num_images=8, sample__weights=weights, **DDLS)
  one = on_one_device(sample.restore(settings, path))
  found = sample.draw(one)
  rng = rng_lib.stream(jax.random.key(0), "sample")
  rngs = rng_lib.per_index(rng, np.arange(8))
  module = sngan.make_discriminator(settings)

  @jax.jit
  def by_hand(variables, of_discriminator):
    logits = lambda x: module.apply(of_discriminator, x)
    return chains.run_ddls(one.networks, logits, variables, rngs, 5, 0.5)

  expected = by_hand(one.variables, one.discriminator_variables)
  for part, name in ((found.samples, "x_sample"), (found.generated, "x_start")):
    images = pixels.to_uint8(jax.device_get(getattr(expected, name)))
    np.testing.assert_array_equal(part, images)
  assert np.any(found.samples != found.generated)


def test_devices_share_the_chains(restored, drawn):
  assert restored.mesh.size == 8
  one = sample.draw(on_one_device(restored)).samples
  # Other batches change the sums, so rounding to uint8 may differ by one.
  assert np.abs(np.int16(drawn.samples) - np.int16(one)).max() <= 1


def test_a_release_draws_the_same_samples(path, drawn, tmp_path):
  folder = release.from_run(path, tmp_path / "release")
  found = sample.draw(sample.restore(config(**DDLS), folder))
  np.testing.assert_array_equal(found.samples, drawn.samples)


def test_samples_are_written_and_known_again(
  path, restored, drawn, tmp_path, capsys
):
  plain = sample.restore(config(), path)
  sample.write(plain, tmp_path, sample.draw(plain))
  assert sample.read(restored, tmp_path) is None  # Those are of other settings.
  sample.write(restored, tmp_path, drawn)
  assert "12 images, raw weights of step 4, 5 steps of DDLS" in (
    capsys.readouterr().out
  )
  np.testing.assert_array_equal(
    sample.read(restored, tmp_path).samples, drawn.samples
  )
  assert sorted(x.name for x in (tmp_path / "samples").iterdir()) == [
    "00000004_2_raw.npz",
    "00000004_2_raw_generator.png",
    "00000004_2_raw_grid.png",
    "00000004_raw.npz",
    "00000004_raw_generator.png",
  ]


@pytest.mark.slow
def test_an_evaluation_has_both_sets_and_says_how_they_were_drawn(
  path, restored, drawn
):
  figures = evaluation.evaluate(restored, drawn).figures
  assert list(figures["sets"]) == ["ddls", "generator", "held_out"]
  assert figures["protocol"]["ddls"] == {"num_steps": 5, "step_size": 0.5}
  assert figures["protocol"]["langevin"] is None
  assert "DDLS samples" in evaluation.table(figures)
  plain = sample.restore(config(), path)
  assert "ddls" not in sample.settings(plain)
  assert sample.weights_digest(plain) != sample.weights_digest(restored)


def test_a_run_without_a_discriminator_is_refused_before_training(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"ddls.num_steps=5: expected"):
    train.train(tiny.config(**DDLS), tmp_path)


@pytest.mark.slow
def test_a_search_measures_other_images_than_an_evaluation(
  path, drawn, tmp_path
):
  out = tmp_path / "new" / "search.json"
  ddls_search.main(
    [
      *(f"--workdir={path}", f"--out={out}"),
      *("--steps=5", "--step_sizes=0.5", "--config.sample.num_images=8"),
    ]
  )
  found = json.loads(out.read_text())
  pairs = [(x["num_steps"], x["step_size"]) for x in found["points"]]
  assert pairs == [(0, 0.0), (5, 0.5)]
  assert found["best"] == found["points"][1]
  assert found["protocol"]["seed"] == 1
  settings = config(sample__num_images=8, **DDLS)
  settings.seed = 1
  other = sample.restore(settings, path, given=["seed"])
  images = sample.draw(other).samples
  assert np.any(images != drawn.samples[:8])
  distance = evaluation.load_reference(other.config).distance(images)
  assert found["best"]["frechet_distance"] == distance
