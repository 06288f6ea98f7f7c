"""A hat of a user's own: trained, resumed, sampled and evaluated."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments.own_hat import nnx_hat
from hatebm_jax import (
  chains,
  errors,
  networks,
  objectives,
  pixels,
  restore,
  sample,
  sharding,
  train,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.run import checkpoint


class LinenHat(nn.Module):
  """One convolution and a head."""

  @nn.compact
  def __call__(self, x):
    x = nn.silu(nn.Conv(4, (3, 3), strides=2)(x))
    return nn.Dense(1)(x.mean((1, 2)))[:, 0]


def plain():
  """A quadratic hat in plain functions, with a tuple of parameters."""

  def init(rng, x):
    return jax.random.uniform(rng, x.shape[1:]), jnp.zeros(())

  def apply(params, x):
    weights, bias = params
    return (weights * jnp.square(x)).sum((1, 2, 3)) + bias

  return networks.Hat(init, apply)


def linen():
  module = LinenHat()
  return networks.Hat(module.init, module.apply)


HATS = {"plain": plain, "linen": linen, "nnx": lambda: nnx_hat.make_hat(1, 4)}


def config(**overrides):
  # At T = 1 no learning rate is too high for such small networks.
  return tiny.config(langevin__temperature=1.0, **overrides)


def state_of(path, hat):
  mesh = sharding.make_mesh()
  objective = objectives.make(config(), mesh, hat=hat)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(config(), objective, mesh, saved)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nnx", "plain", "linen"])
def test_it_trains_resumes_and_draws(kind, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train.train(config(), whole, hat=HATS[kind]())
  for num_steps in (2, 4):
    train.train(config(train__num_steps=num_steps), parts, hat=HATS[kind]())
  states = [state_of(path, HATS[kind]()) for path in (whole, parts)]
  chex.assert_trees_all_equal(*states)
  hat = HATS[kind]()
  restored = sample.restore(config(), whole, hat=hat)
  chex.assert_trees_all_equal(restored.variables[0], states[0].hat.params)
  drawn = sample.draw(restored)
  # The samples are those of the chains on this very hat.
  plan = chains.evaluation_plan(restored.config)
  rngs = rng_lib.per_index(
    rng_lib.stream(jax.random.key(0), "sample"), jnp.arange(12)
  )
  model = restored.networks._replace(hat=hat)
  fresh = chains.run(model, plan, restored.variables, rngs)
  expected = pixels.to_uint8(np.asarray(fresh.x_sample))
  # Rounding to uint8 may differ by one where the batch changes the sums.
  assert np.abs(np.int16(drawn.samples) - np.int16(expected)).max() <= 1
  assert np.any(drawn.samples != drawn.generated)


@pytest.mark.slow
def test_a_hat_that_learns_moves_apart_from_its_start(tmp_path):
  train.train(config(hat__learning_rate=0.1), tmp_path, hat=plain())
  weights, bias = state_of(tmp_path, plain()).hat.params
  assert weights.shape == (16, 16, 1) and bias.shape == ()
  averaged = sample.restore(
    config(sample__weights="averaged"), tmp_path, hat=plain()
  ).variables[0]
  assert np.any(averaged[0] != weights)


@pytest.mark.slow
def test_a_run_with_its_own_hat_is_not_restored_with_another(tmp_path):
  train.train(config(train__num_steps=2), tmp_path, hat=linen())
  with pytest.raises(checkpoint.CheckpointError, match="another network"):
    sample.restore(config(), tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match="another network"):
    sample.restore(config(), tmp_path, hat=plain())


@pytest.mark.parametrize(
  ("apply", "found"),
  [
    (lambda params, x: x.sum((1, 2)), r"float32 \(2, 1\)"),
    (lambda params, x: x.sum(), r"float32 \(\)"),
    (lambda params, x: x.sum((1, 2, 3)).astype("bfloat16"), "bfloat16"),
  ],
)
def test_a_hat_that_gives_no_energies_is_refused(apply, found, tmp_path):
  hat = networks.Hat(lambda rng, x: {}, apply)
  with pytest.raises(errors.ConfigError, match=f"hat gives {found}"):
    train.train(config(), tmp_path / "run", hat=hat)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["digits_sngan", "digits_autoencoder"])
def test_objectives_without_a_hat_take_none(name):
  with pytest.raises(errors.ConfigError, match="takes no hat of your own"):
    objectives.make(tiny.config(name), sharding.make_mesh(), hat=plain())
