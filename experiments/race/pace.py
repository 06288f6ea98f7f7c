"""Prints what a training step of a recipe costs: GFLOP of a matrix product.

python -m experiments.race.pace COURSE RECIPE

The step and the product run in turns, so that other programs slow down both.
"""

import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from experiments.race import settings
from hatebm_jax import compile as compile_lib
from hatebm_jax import objectives, sharding

_ROUNDS = 15
_SIZE = 1024  # height and width of the matrices
_GFLOP = 2e-9 * _SIZE**3  # of their product


def _seconds(call: Callable[[], object]) -> float:
  """Returns the seconds of a call."""
  begin = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - begin


def make_step(config: ml_collections.ConfigDict) -> Callable[[], object]:
  """Returns a function that takes a training step on black images.

  Args:
    config: Config of the run.
  """
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  state = compile_lib.init_state(config, objective, abstract)
  step_fn = compile_lib.compile_steps(objective, state)
  side, group = config.data.image_size, config.data
  shape = (1, config.train.batch_size, side, side, group.channels)
  images, rng = jnp.zeros(shape, jnp.uint8), jax.random.key(0)

  def step():
    nonlocal state
    state, metrics, _ = step_fn(state, images, rng, jnp.ones(1, int))
    return metrics

  return step


def measure(config: ml_collections.ConfigDict) -> float:
  """Returns the cost of a training step in GFLOP of a matrix product.

  Args:
    config: Config of the run.
  """
  step = make_step(config)
  matrix = jax.random.normal(jax.random.key(0), (_SIZE, _SIZE))
  product = jax.jit(lambda x: x @ x)
  for call in (step, lambda: product(matrix)):
    call()  # It compiles.
  costs = []
  for _ in range(_ROUNDS):
    products = [_seconds(lambda: product(matrix)) for _ in range(3)]
    costs.append(_seconds(step) / statistics.median(products) * _GFLOP)
  return statistics.median(costs)


if __name__ == "__main__":
  print(measure(settings.config(*sys.argv[1:], num_steps=1_000)))
