"""Checks the benchmark's arithmetic by hand."""

import pytest
import tiny

from hatebm_jax import flops
from hatebm_jax.benchmark import results


def test_rows_are_medians_over_rounds():
  config = tiny.config(langevin__num_steps=12)

  def times(seconds):
    return {
      "step_short": 1.0,
      "step_long": 1.0 + seconds,
      "joint_short": 2.0,
      "joint_long": 2.0 + 2 * seconds,
      "hat_update": 0.5,
      "generator_update": 0.25,
    }

  # A Langevin step takes (long - short) / 10 seconds, here 0.1, 0.3 and 0.2.
  rounds, rates = [times(1.0), times(3.0), times(2.0)], [100.0, 10.0, 60.0]
  rows = results.rows(config, 10, rates, rounds, times(8.0))
  step = rows["Langevin step, synthesis"]
  assert step.seconds == pytest.approx(0.2)
  assert step.literal_seconds == pytest.approx(0.8)
  assert step.speedup == pytest.approx(4.0)
  floor = flops.langevin_step(config) / 1e9
  assert step.floor_gflop == step.minimal_gflop == pytest.approx(floor)
  # The rounds have 100 x 0.1, 10 x 0.3 and 60 x 0.2 GFLOP: the median is 10.
  assert step.over_floor == pytest.approx(10 / floor)
  joint = rows["Langevin step, joint"]
  assert joint.seconds == pytest.approx(0.4)
  assert joint.minimal_gflop < joint.floor_gflop
  assert rows["both updates"].seconds == pytest.approx(0.75)
  assert rows["training step"].seconds == pytest.approx(3.0)
  fast_alone = results.rows(config, 10, rates, rounds, None)
  assert {row.speedup for row in fast_alone.values()} == {None}
