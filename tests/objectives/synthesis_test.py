import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import chains, langevin, objectives, pixels, sharding
from hatebm_jax import compile as compile_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import synthesis
from hatebm_jax.objectives.parts import hat_learning


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.integers(0, 256, (8, 16, 16, 1), np.uint8))


def run(config, num_devices, num_steps, images):
  """Takes steps; returns the states before and after, metrics and images."""
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  objective = objectives.make(config, mesh)
  shardings = jax.tree.map(
    lambda leaf: leaf.sharding,
    compile_lib.abstract_state(config, objective, mesh),
  )
  init = jax.jit(objective.init, out_shardings=shardings)
  state = first = tiny.with_moved_bank(init(jax.random.key(0)))
  chex.clear_trace_counter()
  step = jax.jit(
    chex.assert_max_traces(objective.step, n=1),
    out_shardings=(shardings, None, None),
  )
  for i in range(num_steps):
    state, metrics, shown = step(state, images, jax.random.key(i))
  return objective, first, state, metrics, shown


@pytest.fixture(scope="module")
def one_step(images):
  return run(tiny.config(), 1, 1, images)


def test_hat_loss_by_hand():
  hat_fn = lambda x: x.sum((1, 2, 3))
  x_data = jnp.array([1.0, 2.0]).reshape(2, 1, 1, 1)
  x_sample = jnp.array([5.0, 6.0]).reshape(2, 1, 1, 1)
  loss, aux = hat_learning.hat_loss(hat_fn, x_data, x_sample, 0.1)
  np.testing.assert_allclose(loss, (1.5 - 5.5) / 0.1)
  assert (aux["energy_data"], aux["energy_sample"]) == (1.5, 5.5)
  penalised, aux = hat_learning.hat_loss(hat_fn, x_data, x_sample, 0.1, 0.02)
  squares = (1**2 + 2**2) / 2 + (5**2 + 6**2) / 2
  np.testing.assert_allclose(penalised, loss + 0.02 * squares / 0.1, rtol=1e-6)
  assert (aux["energy_data"], aux["energy_sample"]) == (1.5, 5.5)


def test_the_energy_penalty_of_the_config_is_in_the_loss(images):
  metrics = run(tiny.config(hat__energy_penalty=100.0), 1, 1, images)[3]
  plain = run(tiny.config(), 1, 1, images)[3]
  assert metrics["energy_data"] == plain["energy_data"]
  # The mean of squares is no less than the square of the mean.
  squares = plain["energy_data"] ** 2 + plain["energy_sample"] ** 2
  least = 100 * squares / tiny.config().langevin.temperature
  assert metrics["hat_loss"] - plain["hat_loss"] > 0.999 * least > 0


def test_generator_loss_by_hand():
  x = jnp.array([1.0, 2.0]).reshape(2, 1, 1, 1)
  loss = synthesis.generator_loss(lambda z: z, x, x + 0.1)
  np.testing.assert_allclose(loss, 1000 * 0.01, rtol=1e-5)


def test_samples_are_those_of_the_chain(one_step):
  objective, first, _, _, shown = one_step
  rng = rng_lib.stream(jax.random.key(0), "chains")
  networks = objective.networks
  hat, generator = networks.variables(first, "raw")
  config = tiny.config()
  state = langevin.init_state(
    rng_lib.per_index(rng, jnp.arange(8)), (4,), (16, 16, 1)
  )
  generator_fn = lambda z: networks.generator.apply(generator, z)

  @jax.jit
  def chain(state):
    end, _ = langevin.sample(
      rng,
      lambda x: networks.hat.apply(hat, x),
      generator_fn,
      state,
      chains.training_plan(config).settings,
    )
    return generator_fn(state.z), generator_fn(end.z) + end.y

  generated, samples = chain(state)
  np.testing.assert_allclose(shown["hat"], samples, atol=1e-5)
  np.testing.assert_allclose(shown["generator"], generated, atol=1e-5)


def replaying(**overrides):
  """Returns a step and a state; its chains stay where they start."""
  config = tiny.config(
    langevin__temperature=1.0, langevin__step_size_y=1e-6, **overrides
  )
  mesh = sharding.make_mesh(jax.devices()[:1])
  objective = objectives.make(config, mesh)
  state = tiny.with_moved_bank(objective.init(jax.random.key(0)))
  return jax.jit(objective.step), state


def starts_in_bank(shown):
  """Returns which chains started at their image of the bank."""
  in_bank, at_generator = (
    np.abs(shown["hat"] - shown[name]).max((1, 2, 3)) < 1e-4
    for name in ("bank", "generator")
  )
  np.testing.assert_array_equal(in_bank, ~at_generator)
  return in_bank


def test_a_share_of_the_chains_goes_on_from_the_bank(images):
  step, state = replaying(langevin__replay_share=0.25)
  found = [
    starts_in_bank(step(state, images, jax.random.key(seed))[-1])
    for seed in range(100)
  ]
  # Four standard errors.
  assert abs(np.mean(found) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 800)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_chains_go_on_from_a_training_step_on(images, clip):
  step, state = replaying(
    langevin__replay_share=0.99,
    langevin__replay_from=2,
    hat__max_grad_norm=clip,
  )
  found = []
  for index in range(3):
    state, _, shown = step(state, images, jax.random.key(index))
    # The bank gets samples, which are the generator's images: move it again.
    state = tiny.with_moved_bank(state)
    found.append(starts_in_bank(shown).mean())
  assert found[:2] == [0, 0] and found[2] > 0.5


def test_bank_gets_the_new_pairs_and_keeps_the_rest(one_step):
  _, first, state, _, shown = one_step
  changed = np.any(first.bank.x != state.bank.x, axis=(2, 3, 4))
  assert changed.sum() == 8
  np.testing.assert_allclose(
    np.sort(state.bank.x[changed].reshape(8, -1).sum(1)),
    np.sort(shown["hat"].reshape(8, -1).sum(1)),
    rtol=1e-5,
  )
  np.testing.assert_array_equal(first.bank.z[~changed], state.bank.z[~changed])


def test_both_networks_learn_and_statistics_stay(one_step):
  _, first, state, metrics, _ = one_step
  for name in ("hat", "generator"):
    for before, after in zip(
      jax.tree.leaves(getattr(first, name).params),
      jax.tree.leaves(getattr(state, name).params),
      strict=True,
    ):
      assert np.any(before != after)
  chex.assert_trees_all_equal(first.generator_stats, state.generator_stats)
  assert set(np.unique(state.generator_stats["norm"]["mean"])) == {0.0}
  assert metrics["hat_loss"] == pytest.approx(
    float(metrics["energy_gap"]) / 1e-8, rel=1e-4
  )


def test_average_is_decayed(one_step):
  _, first, state, _, _ = one_step
  decay = tiny.config().train.average_decay
  expected = jax.tree.map(
    lambda old, new: decay * old + (1 - decay) * new,
    first.hat.params,
    state.hat.params,
  )
  chex.assert_trees_all_close(state.hat.average, expected, atol=1e-7)


def test_the_hat_sees_data_with_their_noise(one_step, images):
  noise = one_step[-1]["data"] - pixels.to_float(images)
  noise = np.asarray(noise / tiny.config().hat.data_epsilon)
  # Four standard errors, of a mean and of a Gaussian's variance.
  assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
  assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)


def test_step_is_traced_once(images):
  run(tiny.config(), 1, 2, images)  # raises at a second trace


@pytest.mark.parametrize("replay_share", [0.0, 0.5])
def test_one_and_eight_devices_take_the_same_step(images, replay_share):
  # At T = 1 the chain is no amplifier of rounding, and no step is clipped.
  config = tiny.config(
    langevin__temperature=1.0,
    langevin__step_size_y=0.1,
    langevin__replay_share=replay_share,
  )
  *_, one, metrics_one, shown_one = run(config, 1, 1, images)
  *_, eight, metrics_eight, shown_eight = run(config, 8, 1, images)
  chex.assert_trees_all_close(metrics_one, metrics_eight, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(shown_one, shown_eight, atol=1e-4)
  chex.assert_trees_all_close(one.bank, eight.bank, atol=1e-4)
  # Adam's first moments are the gradients; the parameters themselves are no
  # measure, as Adam turns a gradient of rounding into a full step. The
  # generator's are all rounding: its bank holds its own images still.
  moments = [state.hat.optimizer[0].mu for state in (one, eight)]
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments))
  chex.assert_trees_all_close(*moments, atol=1e-4 * scale)
