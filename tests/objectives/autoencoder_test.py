import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import errors, objectives, pixels, sharding
from hatebm_jax.models import encoder as encoder_lib
from hatebm_jax.objectives import autoencoder


def config(**overrides):
  return tiny.config("digits_autoencoder", train__test_every=2, **overrides)


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (8, 16, 16, 1), np.uint8))


@pytest.fixture(scope="module")
def one_step(images):
  return tiny.take_step(config(), 1, images)


def test_loss_by_hand():
  x = jnp.array([1.0, 2.0]).reshape(2, 1, 1, 1)
  noise = jnp.array([0.1, -0.2]).reshape(2, 1, 1, 1)
  loss = autoencoder.reconstruction_loss(
    lambda x: 2 * x, lambda z: z / 2, x, noise
  )
  # The reconstructions are x + noise / 2.
  np.testing.assert_allclose(loss, [1000 * 0.0025, 1000 * 0.01], rtol=1e-5)


def test_the_step_minimises_the_loss_of_its_batch(one_step, images):
  objective, first, _, metrics, _ = one_step
  settings = config()
  settings.autoencoder.latent_epsilon = 0.0
  _, _, _, quiet, _ = tiny.take_step(settings, 1, images)
  losses = jax.jit(objective.test_loss)(first, images, jax.random.key(1))
  assert losses.shape == (8,)
  np.testing.assert_allclose(
    metrics["reconstruction_loss"], losses.mean(), rtol=1e-5
  )
  assert quiet["reconstruction_loss"] != metrics["reconstruction_loss"]


def test_both_networks_learn_and_statistics_stay(one_step):
  _, first, state, _, _ = one_step
  for name in ("generator", "encoder"):
    for before, after in zip(
      jax.tree.leaves(getattr(first, name).params),
      jax.tree.leaves(getattr(state, name).params),
      strict=True,
    ):
      assert np.any(before != after)
  for before, after in zip(
    jax.tree.leaves(first.generator_stats),
    jax.tree.leaves(state.generator_stats),
    strict=True,
  ):
    np.testing.assert_array_equal(before, after)


def test_what_is_shown(one_step, images):
  objective, _, state, _, shown = one_step
  x = pixels.to_float(images)
  np.testing.assert_array_equal(shown["data"], x)
  encoder = encoder_lib.make(16, 8)
  z = jax.jit(encoder.apply)({"params": state.encoder.params}, x)
  norms = np.linalg.norm(z.reshape(8, -1), axis=1)
  np.testing.assert_allclose(norms, np.sqrt(8 * 8), rtol=1e-4)
  _, variables = objective.networks.variables(state, "raw")
  expected = jax.jit(objective.networks.generator.apply)(variables, z)
  np.testing.assert_allclose(shown["reconstruction"], expected, atol=1e-5)
  assert np.all(np.isfinite(shown["noise"]))


@pytest.mark.slow
def test_one_and_eight_devices_take_the_same_step(one_step, images):
  _, _, one, metrics, shown = one_step
  _, _, eight, metrics_eight, shown_eight = tiny.take_step(config(), 8, images)
  for a, b in zip(
    jax.tree.leaves((metrics, shown["data"])),
    jax.tree.leaves((metrics_eight, shown_eight["data"])),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4)
  for name in ("generator", "encoder"):
    # Adam's first moments are the gradients.
    moments = [getattr(s, name).optimizer[0].mu for s in (one, eight)]
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments))
    for a, b in zip(*map(jax.tree.leaves, moments), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-4 * scale)


def test_an_autoencoder_needs_a_decoder():
  with pytest.raises(errors.ConfigError, match=r"kind='generator'.*'decoder'"):
    objectives.make(config(generator__kind="generator"), sharding.make_mesh())
