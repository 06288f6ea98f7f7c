"""Prints what a training step of a recipe costs: GFLOP of a matrix product.

python -m experiments.race.pace COURSE RECIPE

The step and the product run in turns, so that other programs slow down both.
"""

import statistics
import sys
import time
from collections.abc import Callable

import jax
import ml_collections

from experiments.race import settings
from hatebm_jax import sharding
from hatebm_jax.benchmark import programs

_ROUNDS = 15


def _seconds(call: Callable[[], object]) -> float:
  """Returns the seconds of a call."""
  begin = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - begin


def measure(config: ml_collections.ConfigDict) -> float:
  """Returns the cost of a training step in GFLOP of a matrix product.

  Args:
    config: Config of the run.
  """
  mesh = sharding.make_mesh()
  product, gflop = programs.matrix_product(config, mesh)
  step = programs.training_step(config, mesh, [programs.start(config, mesh)])
  pairs = [
    (_seconds(step.call), _seconds(product.call)) for _ in range(_ROUNDS)
  ]
  return statistics.median(x / y for x, y in pairs) * gflop


if __name__ == "__main__":
  print(measure(settings.config(*sys.argv[1:], num_steps=1_000)))
