"""Checks the least arithmetic of the benchmark's programs."""

import pytest
import tiny

from hatebm_jax import flops
from hatebm_jax.benchmark import programs, timing


@pytest.mark.parametrize(
  ("num_steps", "joint"), [(3, (2, 3)), (8, (2, 8)), (50, (2, 8))]
)
def test_only_the_long_training_step_has_all_langevin_steps(num_steps, joint):
  found = programs.lengths(tiny.config(langevin__num_steps=num_steps))
  assert found == {"step": (2, num_steps), "joint": joint}


def test_configs_of_the_chains():
  config = tiny.config(langevin__num_steps=50)
  found = programs.chain_configs(config)
  assert {k: v.langevin.num_steps for k, v in found.items()} == {
    "step_short": 2,
    "step_long": 50,
    "joint_short": 2,
    "joint_long": 8,
  }
  assert config.langevin.num_steps == 50


def test_least_arithmetic_of_the_programs():
  config = tiny.config(langevin__num_steps=12)
  found = programs.least_gflop(config)
  joint = flops.langevin_step(config, joint=True)
  short = tiny.config(langevin__num_steps=2)
  assert found == {
    "hat_update": flops.hat_update(config) / 1e9,
    "generator_update": flops.generator_update(config) / 1e9,
    "step_short": flops.training_step(short) / 1e9,
    "step_long": flops.training_step(config) / 1e9,
    "joint_short": 2 * joint / 1e9,
    "joint_long": 8 * joint / 1e9,
  }


def test_least_seconds_of_a_turn():
  # At 10 GFLOP/s the programs take 0.1 s and 2 s; a program runs for 0.5 s.
  assert timing._least_seconds({"short": 1.0, "long": 20.0}, 10.0) == 2.5
