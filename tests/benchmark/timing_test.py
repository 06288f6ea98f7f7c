"""Runs the benchmark."""

import json

import pytest
import tiny

from hatebm_jax import benchmark, data, errors
from hatebm_jax.benchmark import results


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
  table = results.table(result)
  assert "Langevin step, joint" in table
