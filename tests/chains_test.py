"""The one place where chains are set up, on networks that can be worked out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import chains, errors, langevin, models, networks, sharding
from hatebm_jax import rng as rng_lib

SHAPE = (2, 2, 1)
IMAGE = (16, 16, 1)
# H(x) = a |x|^2 / 2 and G(z) = b z, with parameters a and b.
MODEL = networks.Networks(
  hat=networks.Hat(
    init=lambda rng, x: jnp.ones(()),
    apply=lambda a, x: 0.5 * a * jnp.square(x).sum((1, 2, 3)),
  ),
  generator=networks.Generator(lambda b, z: b * z, SHAPE),
  variables=None,
  latent_shape=SHAPE,
  image_shape=SHAPE,
)
VARIABLES = jnp.float32(2.0), jnp.float32(0.5)
RNGS = rng_lib.per_index(jax.random.key(0), jnp.arange(16))


def plan(update_z, num_steps=6):
  settings = langevin.Settings(num_steps, 0.1, 0.2, update_z=update_z)
  return chains.Plan(settings, init_scale_z=0.7, init_scale_y=0.3)


def test_chains_start_at_the_scales_of_the_plan():
  state = chains.start(MODEL, plan(True), RNGS)
  unit = langevin.init_state(RNGS, SHAPE, SHAPE, 1.0, 1.0)
  np.testing.assert_allclose(state.z, 0.7 * unit.z, rtol=1e-6)
  np.testing.assert_allclose(state.y, 0.3 * unit.y, rtol=1e-6)


@pytest.mark.parametrize("update_z", [False, True])
def test_a_run_is_its_start_and_its_langevin_steps(update_z):
  fresh = jax.jit(functools.partial(chains.run, MODEL, plan(update_z)))(
    VARIABLES, RNGS
  )
  first = state = chains.start(MODEL, plan(update_z), RNGS)
  for index in range(6):
    state, _ = langevin.step(
      RNGS,
      lambda x: jnp.square(x).sum((1, 2, 3)),
      lambda z: 0.5 * z,
      state,
      plan(update_z).settings,
      index,
    )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(fresh.z, state.z)
  close(fresh.x_start, 0.5 * first.z)
  close(fresh.x_sample, 0.5 * state.z + state.y)
  assert fresh.info.energy.shape == (1, 6)


def test_chosen_chains_go_on_from_their_pairs():
  chosen = jnp.arange(16) % 4 == 3
  z = rng_lib.normal(RNGS, SHAPE)
  x = 3 + z
  fresh = chains.start(MODEL, plan(False), RNGS)
  replay = chains.Replay(chosen, z, x)
  first = chains.continue_from(lambda z: 0.5 * z, fresh, replay)
  np.testing.assert_array_equal(first.z[chosen], z[chosen])
  np.testing.assert_allclose(first.y[chosen], (x - 0.5 * z)[chosen], rtol=1e-6)
  for got, want in zip(first, fresh, strict=True):
    np.testing.assert_array_equal(got[~chosen], want[~chosen])

  done = chains.run(MODEL, plan(False, 1), VARIABLES, RNGS, replay)
  # A step of eps = 0.1 moves an image of the energy |x|^2 to 0.99 x.
  streams = jax.vmap(lambda rng: rng_lib.stream(rng, "y"))(RNGS)
  noise = 0.1 * rng_lib.normal(rng_lib.fold_in(streams, 0), SHAPE)
  np.testing.assert_allclose(
    done.x_sample[chosen], (0.99 * x + noise)[chosen], rtol=1e-5
  )
  np.testing.assert_array_equal(done.z, first.z)


@pytest.mark.parametrize("update_z", [False, True])
@pytest.mark.parametrize(
  ("full_batch", "expected"), [(32, 32), (16, 16), (24, 16)]
)
def test_few_chains_are_repeated_to_fill_a_batch(
  full_batch, expected, update_z
):
  sizes = []

  def apply(a, x):
    sizes.append(len(x))
    return MODEL.hat.apply(a, x)

  hat = MODEL.hat._replace(apply=apply, full_batch=full_batch)
  first = chains.start(MODEL, plan(update_z), RNGS)
  found, plain = (
    chains.advance(model, plan(update_z), VARIABLES, RNGS, first)
    for model in (MODEL._replace(hat=hat), MODEL)
  )
  assert set(sizes) == {expected}
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, plain)
  for got, want in zip(*map(jax.tree.leaves, (found, plain)), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_four_chains_of_the_form_for_tpus_are_those_of_the_literal_form():
  def run(form):
    hat = models.in_form(models.hat.make(16, 8), form)
    model = MODEL._replace(hat=networks.linen_hat(hat), image_shape=IMAGE)
    model = model._replace(latent_shape=IMAGE)
    params = model.hat.init(jax.random.key(1), jnp.zeros((1, *IMAGE)))
    advance = functools.partial(chains.run, model, plan(False))
    return model.hat.full_batch, jax.jit(advance)((params, 0.5), RNGS[:4])

  (full, found), (one, literal) = run("dense"), run("literal")
  assert (full, one) == (8, 1)
  assert found.x_sample.shape == (4, *IMAGE)
  for got, want in zip(*map(jax.tree.leaves, (found, literal)), strict=True):
    scale = np.abs(want).max() or 1
    np.testing.assert_allclose(got / scale, want / scale, atol=1e-5)


@pytest.mark.parametrize("method", ["shard_map", "pmap"])
def test_one_and_eight_devices_run_the_same_chains(method):
  run = functools.partial(chains.run, MODEL, plan(True))
  z = jnp.ones((16, *SHAPE))
  replay = chains.Replay(jnp.arange(16) % 3 == 0, z, 2 * z)
  one, eight = (
    chains.over_devices(run, sharding.make_mesh(jax.devices()[:n]), method)(
      VARIABLES, RNGS, replay
    )
    for n in (1, 8)
  )
  np.testing.assert_allclose(one.x_sample, eight.x_sample, atol=1e-6)
  assert eight.info.energy.shape == (8, 6)
  np.testing.assert_allclose(
    one.info.energy[0], eight.info.energy.mean(0), rtol=1e-5
  )


@pytest.mark.parametrize("update_z", [False, True])
@pytest.mark.parametrize(
  ("num_steps", "num_frames", "steps"),
  [
    (6, 4, [0, 2, 4, 6]),
    (7, 4, [0, 3, 5, 7]),
    (11, 5, [0, 3, 6, 9, 11]),
    (3, 4, [0, 1, 2, 3]),
    (5, 2, [0, 5]),
  ],
)
def test_a_film_keeps_states_of_the_chain_to_its_end(
  num_steps, num_frames, steps, update_z
):
  long = plan(update_z, num_steps)
  generated, residuals = chains.film(MODEL, long, VARIABLES, RNGS, num_frames)
  assert generated.shape == residuals.shape == (16, num_frames, *SHAPE)
  first = chains.start(MODEL, long, RNGS)
  for frame, step in enumerate(steps):
    piece = plan(update_z, step)
    state = first
    if step:
      state, _ = chains.advance(MODEL, piece, VARIABLES, RNGS, first)
    np.testing.assert_allclose(generated[:, frame], 0.5 * state.z, atol=1e-6)
    np.testing.assert_allclose(residuals[:, frame], state.y, atol=1e-6)


def test_two_pieces_are_one_chain():
  first = chains.start(MODEL, plan(True), RNGS)
  whole, _ = chains.advance(MODEL, plan(True), VARIABLES, RNGS, first)
  half, _ = chains.advance(MODEL, plan(True, 2), VARIABLES, RNGS, first)
  half, _ = chains.advance(MODEL, plan(True, 4), VARIABLES, RNGS, half, 2)
  np.testing.assert_allclose(whole.z, half.z, atol=1e-6)
  np.testing.assert_allclose(whole.y, half.y, atol=1e-6)


def test_ddls_by_hand():
  """On D(x) = -|x|^2 / 2 and G(z) = b z: grad U = (1 + b^2) z."""
  logits = lambda x: -0.5 * jnp.square(x).sum((1, 2, 3))
  fresh = chains.run_ddls(MODEL, logits, VARIABLES, RNGS, 3, 0.4)
  z = first = langevin.init_state(RNGS, SHAPE, SHAPE).z
  noise_rngs = jax.vmap(lambda rng: rng_lib.stream(rng, "y"))(RNGS)
  norms = []
  for index in range(3):
    drift = 0.08 * 1.25 * z
    norms.append(np.linalg.norm(drift.reshape(16, -1), axis=1).mean())
    rngs = jax.vmap(jax.random.fold_in, (0, None))(noise_rngs, index)
    z = z - drift + 0.4 * rng_lib.normal(rngs, SHAPE)
  np.testing.assert_allclose(fresh.z, z, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(fresh.x_start, 0.5 * first, rtol=1e-6)
  np.testing.assert_allclose(fresh.x_sample, 0.5 * z, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(fresh.info.drift_norm[0], norms, rtol=1e-5)


def test_the_plans_of_training_and_evaluation():
  config = tiny.config(
    langevin__step_size_y=0.3,
    langevin__init_scale_z=0.9,
    evaluate__temperature=0.5,
    evaluate__init_scale_y=0.2,
  )
  train, evaluate = chains.training_plan(config), chains.evaluation_plan(config)
  assert train.settings.step_size_y == evaluate.settings.step_size_y == 0.3
  assert evaluate.settings.temperature == 0.5
  assert (train.settings.num_steps, evaluate.settings.num_steps) == (3, 4)
  assert (train.init_scale_z, train.init_scale_y) == (0.9, 0.0)
  assert (evaluate.init_scale_z, evaluate.init_scale_y) == (0.9, 0.2)
  assert not train.settings.update_z
  config.objective = "joint"
  assert chains.training_plan(config).settings.update_z


def test_longer_chains_repeat_the_annealing_of_training():
  config = tiny.config(langevin__annealing=4.0, evaluate__num_steps=6)
  train, evaluate = chains.training_plan(config), chains.evaluation_plan(config)
  for plan, num_steps in ((train, 3), (evaluate, 6)):
    assert plan.settings.num_steps == num_steps
    assert (plan.settings.annealing, plan.settings.cycle) == (4.0, 3)


def test_a_chain_that_ends_within_an_annealing_is_a_clear_error():
  config = tiny.config(langevin__annealing=4.0, evaluate__num_steps=4)
  with pytest.raises(errors.ConfigError) as caught:
    chains.evaluation_plan(config)
  for part in ("config.evaluate.num_steps=4", "a multiple of", "Set it to 6."):
    assert part in str(caught.value)
