"""Checks the benchmark's arithmetic by hand, and runs the benchmark."""

import json

import pytest
import tiny

from hatebm_jax import benchmark, data, errors, flops


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
  rows = benchmark.rows(config, rates, rounds, times(8.0))
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
  fast_alone = benchmark.rows(config, rates, rounds, None)
  assert {row.speedup for row in fast_alone.values()} == {None}


def test_what_cannot_be_timed_is_refused():
  with pytest.raises(errors.ConfigError, match=r"langevin\.num_steps=2"):
    benchmark.measure(tiny.config(langevin__num_steps=2))
  config = tiny.config()
  config.objective = "joint"
  with pytest.raises(errors.ConfigError, match="expected a config of synth"):
    benchmark.measure(config)
  with pytest.raises(data.DataError, match="multiple of 8"):
    benchmark.measure(tiny.config(train__batch_size=12))


@pytest.mark.slow
def test_a_run_of_the_benchmark():
  result = json.loads(json.dumps(benchmark.measure(tiny.config(), 2)))
  assert result["matrix_product_gflops"] > 0
  for row in result["work"].values():
    assert row["floor_gflop"] >= row["minimal_gflop"] > 0
  step = result["work"]["training step"]
  assert step["seconds"] > 0
  assert step["over_floor"] == pytest.approx(
    step["seconds"] * result["matrix_product_gflops"] / step["floor_gflop"],
    rel=0.5,
  )
  table = benchmark.table(result)
  assert "Langevin step, joint" in table
