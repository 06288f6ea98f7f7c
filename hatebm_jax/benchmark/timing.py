"""Times the benchmark's programs in turns.

A Langevin step of synthesis is what one more step adds to the compiled training
step, so it is timed inside the loop that trains. A Langevin step of the joint
form is what one more step adds to a chain of its own.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import data, errors, sharding
from hatebm_jax.benchmark import programs, results

SHORT = 2  # Langevin steps of the shorter one of two programs
_ROUND_SECONDS = 0.5  # each program runs at least so long in a round


def measure(
  config: ml_collections.ConfigDict,
  num_rounds: int = 9,
  with_literal: bool = True,
) -> dict[str, Any]:
  """Runs the benchmark.

  Args:
    config: Config of a synthesis. The training step that is timed has its
      `langevin.num_steps`.
    num_rounds: Number of rounds. Every program runs once in a round, and
      medians are taken over rounds.
    with_literal: True times the literal forms too.

  Returns:
    The results, which the command writes as JSON.

  Raises:
    ConfigError: If the config is of another objective, or asks for fewer than
      3 Langevin steps.
  """
  _check(config)
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  compiled = {"fast": programs.compile_all(config, mesh, SHORT)}
  if with_literal:
    literal = ml_collections.ConfigDict(config)
    literal.model.conv_form = "literal"
    compiled["literal"] = programs.compile_all(literal, mesh, SHORT)
  calls = {kind: forms.calls for kind, forms in compiled.items()}
  product = programs.matrix_product(config, mesh)
  rates, rounds, literal = _time_in_turns(calls, *product, num_rounds)
  num_more = config.langevin.num_steps - SHORT
  rows = results.rows(config, num_more, rates, rounds, literal)
  return {
    "config": config.to_dict(),
    "machine": {
      "devices": mesh.size,
      "device_kind": mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
    },
    "rounds": num_rounds,
    "matrix_product_gflops": statistics.median(rates),
    "work": {name: row._asdict() for name, row in rows.items()},
    "compile_seconds": {k: v.compile_seconds for k, v in compiled.items()},
    "training_step_bytes": {k: v.step_bytes for k, v in compiled.items()},
    "process_peak_bytes": _peak_bytes(mesh),
  }


def _check(config: ml_collections.ConfigDict) -> None:
  if config.objective != "synthesis":
    raise errors.ConfigError(
      f"config.objective={config.objective!r}: expected a config of synthesis. "
      "It has all parts that are timed; the joint form is timed with its "
      "networks."
    )
  if config.langevin.num_steps <= SHORT:
    raise errors.ConfigError(
      f"config.langevin.num_steps={config.langevin.num_steps}: expected "
      f"{SHORT + 1} or more, so that the time of one more step can be told."
    )


def _time_in_turns(
  calls: Mapping[str, Mapping[str, Callable[[], Any]]],
  product: Callable[[], Any],
  product_gflop: float,
  num_rounds: int,
) -> tuple[list[float], list[dict[str, float]], dict[str, float] | None]:
  """Times the programs and the matrix product in turns.

  The literal forms are so slow that they are timed once.

  Returns:
    The rate of each round in GFLOP/s, the seconds of the fast programs in each
    round, and the seconds of the literal programs.
  """
  rates, rounds = [], []
  literal = jax.tree.map(_seconds, calls.get("literal"))
  for i in range(num_rounds):
    rates.append(product_gflop / _seconds(product))
    rounds.append(jax.tree.map(_seconds, calls["fast"]))
    print(f"round {i + 1} of {num_rounds}", file=sys.stderr, flush=True)
  return rates, rounds, literal


def _seconds(call: Callable[[], Any]) -> float:
  """Returns the mean seconds of as many calls as fill a round's share."""
  first = _wall_seconds(call, 1)
  if first > _ROUND_SECONDS:
    return first  # It is so long that being the first does not matter.
  once = _wall_seconds(call, 1)
  return _wall_seconds(call, max(1, round(_ROUND_SECONDS / once)))


def _wall_seconds(call: Callable[[], Any], repeats: int) -> float:
  start = time.perf_counter()
  for _ in range(repeats):
    # Each call is waited for, as in a chain. On a CPU calls would overlap.
    jax.block_until_ready(call())
  return (time.perf_counter() - start) / repeats


def _peak_bytes(mesh: Mesh) -> int:
  """Returns the peak memory of the first device, on a CPU of this process."""
  stats = mesh.devices.flat[0].memory_stats()
  if stats and "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
