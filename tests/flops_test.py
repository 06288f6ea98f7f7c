"""Checks the counts of FLOPs against known ones and against XLA's."""

import jax
import jax.numpy as jnp
import pytest

from hatebm_jax import flops, models
from hatebm_jax.configs import cifar10
from hatebm_jax.models import generator as generator_lib
from hatebm_jax.models import hat as hat_lib


def config():
  config = cifar10.get_config()
  config.unlock()
  config.train.batch_size = 8
  return config


@pytest.mark.parametrize(
  ("size", "width", "literal", "minimal"),
  [
    (32, 256, 1.081, 0.502),
    (64, 1024, 1.098, 0.506),
    (128, 1024, 4.693, 2.328),
  ],
)
def test_hat(size, width, literal, minimal):
  count = lambda rules: flops.hat(size, width, rules=rules) / 1e9
  assert count(flops.LITERAL) == pytest.approx(literal, rel=1e-3)
  assert count(flops.MINIMAL) == pytest.approx(minimal, rel=1e-3)


def test_literal_networks_agree_with_xla():
  # XLA does not count padding. It counts elementwise operations in addition.
  rules = flops.LITERAL._replace(padding=False, shortcuts_at_full_size=False)
  hat = hat_lib.make(16, 64)
  generator = generator_lib.make(16, 64)
  x, z = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 128))
  for module, inputs, count in (
    (hat, x, flops.hat(16, 64, rules=rules)),
    (generator, z, flops.generator(16, 64, rules=rules)),
  ):
    variables = jax.eval_shape(module.init, jax.random.key(0), inputs)
    literal = models.in_form(module, "literal")
    lowered = jax.jit(literal.apply).lower(variables, inputs)
    found = lowered.compile().cost_analysis()["flops"]
    assert 2 * count <= found < 1.1 * 2 * count


def test_parts_of_a_step():
  up = flops.UP_AT_FULL_SIZE
  giga = lambda count: count / 1e9
  assert giga(flops.langevin_step(config())) == pytest.approx(16.1, rel=0.01)
  joint = flops.langevin_step(config(), joint=True, rules=up)
  assert giga(joint) == pytest.approx(83.8, rel=0.01)
  updates = flops.hat_update(config(), up) + flops.generator_update(
    config(), up
  )
  assert giga(updates) == pytest.approx(126, rel=0.01)


def test_the_up_convolution_at_a_quarter():
  # The three blocks have 256 channels and grow to 8, 16 and 32 pixels.
  saved = sum(9 * 256 * 256 * (n * n - n * n // 4) for n in (8, 16, 32))
  full = flops.generator(32, 256, rules=flops.UP_AT_FULL_SIZE)
  assert full - flops.generator(32, 256) == saved


def test_training_step_is_the_sum_of_its_parts():
  start = 2 * 8 * flops.generator(32, 256)
  assert flops.training_step(config()) == (
    start
    + 50 * flops.langevin_step(config())
    + flops.hat_update(config())
    + flops.generator_update(config())
  )
