import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import errors, objectives, optim, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import sngan


def config(**overrides):
  return tiny.config("digits_sngan", **overrides)


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (16, 16, 16, 1), np.uint8))


@pytest.fixture(scope="module")
def one_step(images):
  return tiny.take_step(config(), 1, images)


def test_hinge_losses_by_hand():
  data_logits = jnp.array([2.0, 0.5, -1.0])  # 0, 0.5, 2
  sample_logits = jnp.array([-3.0, -0.5, 1.0])  # 0, 0.5, 2
  loss = sngan.discriminator_loss(data_logits, sample_logits)
  np.testing.assert_allclose(loss, 5 / 3, rtol=1e-6)
  np.testing.assert_allclose(
    sngan.generator_loss(sample_logits), 2.5 / 3, rtol=1e-6
  )


def test_rates_fall_linearly_to_zero_and_are_shared_within_a_step():
  optimizer = optim.gan_adam(0.1, decay_steps=4, updates_per_step=2)
  params = jnp.zeros(1)
  state, sizes = optimizer.init(params), []
  for _ in range(12):
    # b1 = 0 and gradients of one size: Adam's update is the rate itself.
    update, state = optimizer.update(jnp.ones(1), state, params)
    sizes.append(-float(update[0]))
  steps = np.minimum(np.arange(12) // 2, 4)
  np.testing.assert_allclose(sizes, 0.1 * (1 - steps / 4), atol=1e-6)


def test_adam_has_the_constants_of_torch_mimicry():
  optimizer = optim.gan_adam(0.1, decay_steps=10**9)
  params = jnp.zeros(1)
  state, v = optimizer.init(params), 0.0
  for step, gradient in enumerate([2.0, -1.0, 1e-7], 1):
    update, state = optimizer.update(jnp.array([gradient]), state, params)
    v = 0.9 * v + 0.1 * gradient**2
    expected = -0.1 * gradient / (np.sqrt(v / (1 - 0.9**step)) + 1e-8)
    np.testing.assert_allclose(update, [expected], rtol=1e-4)


def latents(rng):
  return rng_lib.normal(rng_lib.per_index(rng, jnp.arange(8)), (4,))


def generate(networks, params, stats, z):
  variables = {"params": params, "batch_stats": stats}
  images, new = networks.generator.apply(
    variables, z, train=True, mutable=["batch_stats"]
  )
  return images, new["batch_stats"]


def score(params, spectral, x):
  logits, new = sngan.make_discriminator(config()).apply(
    {"params": params, "spectral": spectral},
    x,
    train=True,
    mutable=["spectral"],
  )
  return logits, new["spectral"]


def two_discriminator_steps(networks, first, x, rngs):
  """Returns parameters, spectral, statistics and mean real logits [2]."""
  stats, spectral, logits = first.generator_stats, first.spectral, []
  # The rates of configs/digits_sngan.py.
  params, optimizer = first.discriminator.params, optim.gan_adam(5e-4, 3_000, 2)
  opt_state = optimizer.init(params)
  for i in range(2):
    fake, stats = generate(
      networks, first.generator.params, stats, latents(rngs[i])
    )

    def loss_fn(params, i=i, fake=fake, spectral=spectral):
      real, spectral = score(params, spectral, x[i::2])
      logits, spectral = score(params, spectral, fake)
      loss = sngan.discriminator_loss(real, logits)
      return loss, (spectral, real.mean())

    gradients, (spectral, logit) = jax.grad(loss_fn, has_aux=True)(params)
    logits.append(logit)
    update, opt_state = optimizer.update(gradients, opt_state, params)
    params = jax.tree.map(jnp.add, params, update)
  return params, spectral, stats, jnp.stack(logits)


def test_a_step_is_written_out(one_step, images):
  """Two discriminator steps on two batches, then one of the generator."""
  objective, first, state, metrics, _ = one_step
  rng = jax.random.key(1)
  rngs = rng_lib.per_index(rng_lib.stream(rng, "discriminator"), jnp.arange(2))

  @jax.jit
  def by_hand(first):
    params, spectral, stats, logits = two_discriminator_steps(
      objective.networks, first, pixels.to_float(images), rngs
    )

    def loss_fn(generator_params):
      z = latents(rng_lib.stream(rng, "generator"))
      fake, new = generate(objective.networks, generator_params, stats, z)
      logits, after = score(params, spectral, fake)
      return sngan.generator_loss(logits), (new, after)

    result = jax.grad(loss_fn, has_aux=True)(first.generator.params)
    return result, logits

  (gradients, (stats, spectral)), logits = by_hand(first)
  chex.assert_trees_all_close(state.generator_stats, stats, atol=1e-5)
  chex.assert_trees_all_close(state.spectral, spectral, atol=1e-4)
  np.testing.assert_allclose(metrics["logit_data"], logits.mean(), atol=1e-4)
  # b1 = 0: Adam's first moment is the last gradient.
  moments = state.generator.optimizer[0].mu
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
  chex.assert_trees_all_close(moments, gradients, atol=1e-3 * scale)
  assert state.discriminator.optimizer[0].count == 2
  assert state.generator.optimizer[0].count == 1


def test_the_start_is_torch_mimicrys(one_step):
  _, first, _, _, _ = one_step
  for params in (first.generator.params, first.discriminator.params):
    for name, gain in (("conv_0", 2), ("conv_1", 2), ("shortcut", 1)):
      kernel = params["block_1"][name]["kernel"]
      taps, fan_in, fan_out = kernel[..., 0, 0].size, *kernel.shape[2:]
      bound = np.sqrt(gain * 6 / (taps * (fan_in + fan_out)))
      assert 0.8 * bound < np.abs(kernel).max() <= bound * 1.0001


def test_shown_images_use_the_stored_statistics(one_step, images):
  objective, _, state, _, shown = one_step
  _, variables = objective.networks.variables(state, "raw")
  rng = rng_lib.stream(jax.random.key(1), "generator")
  z = rng_lib.normal(rng_lib.per_index(rng, jnp.arange(8)), (4,))
  expected = jax.jit(objective.networks.generator.apply)(variables, z)
  np.testing.assert_allclose(shown["generator"], expected, atol=1e-5)
  np.testing.assert_array_equal(shown["data"], pixels.to_float(images[::2]))


@pytest.mark.slow
def test_one_and_eight_devices_take_the_same_step(one_step, images):
  _, _, one, metrics, _ = one_step
  _, _, eight, metrics_eight, _ = tiny.take_step(config(), 8, images)
  chex.assert_trees_all_close(metrics, metrics_eight, rtol=1e-3, atol=1e-4)
  chex.assert_trees_all_close(
    one.generator_stats, eight.generator_stats, atol=1e-4
  )
  moments = [state.generator.optimizer[0].mu for state in (one, eight)]
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments))
  chex.assert_trees_all_close(*moments, atol=1e-3 * scale)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"generator__kind": "decoder"}, "kind='decoder'.*'generator'"),
  ],
)
def test_settings_that_cannot_be(overrides, message):
  with pytest.raises(errors.ConfigError, match=message):
    objectives.make(config(**overrides), sharding.make_mesh())
