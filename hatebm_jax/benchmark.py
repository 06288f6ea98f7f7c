"""Command line: python -m hatebm_jax.benchmark [--config=FILE] [--width=W].

Times what a run is made of, each beside its literal formulation and beside its
floor, FLOPs over the machine's matrix-product rate: all in one process, in
turns.

A Langevin step of synthesis is what one more step adds to the compiled training
step: it is timed in the loop that trains. So is the joint form's, in a
chain of its own.
"""

import functools
import json
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from jax.sharding import Mesh
from ml_collections import config_flags

from hatebm_jax import chains as chains_lib
from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  data,
  errors,
  flops,
  langevin,
  objectives,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import conv_ops
from hatebm_jax.objectives import synthesis
from hatebm_jax.objectives.parts import hat_learning

_SHORT = 2  # Langevin steps of the shorter of two runs
_MATRIX = 2048  # rows and columns of the product that measures the machine
_ROUND_SECONDS = 0.5  # that each program runs for in a round, at least


class Row(NamedTuple):
  """A piece of work on the whole batch; medians over rounds.

  Attributes:
    seconds: of the fast formulation.
    literal_seconds: of the literal one, timed once; None: not timed.
    speedup: literal over fast.
    floor_gflop: pooled convolutions at a quarter, shortcuts on the small side,
      up convolutions at full size: what the reference's networks need.
    minimal_gflop: up convolutions at a quarter too: what is run here.
    over_floor: seconds times the matrix-product rate, over floor_gflop.
    over_minimal: the same over minimal_gflop.
  """

  seconds: float
  literal_seconds: float | None
  speedup: float | None
  floor_gflop: float
  minimal_gflop: float
  over_floor: float
  over_minimal: float


class _Programs(NamedTuple):
  """Compiled calls without arguments, in one of the two formulations."""

  calls: dict[str, Callable[[], Any]]
  compile_seconds: float
  step_bytes: int | None


def measure(
  config: ml_collections.ConfigDict,
  num_rounds: int = 9,
  with_literal: bool = True,
) -> dict[str, Any]:
  """Runs the benchmark.

  Args:
    config: of a synthesis; its `langevin.num_steps` are those of the training
      step that is timed.
    num_rounds: in each, every program runs in turn; medians are over rounds.
    with_literal: time the literal formulations too.

  Returns:
    What `main` prints as JSON.

  Raises:
    ConfigError: if the config is of another objective, or asks for fewer than
      3 Langevin steps.
  """
  if config.objective != "synthesis":
    raise errors.ConfigError(
      f"config.objective={config.objective!r}: expected a config of synthesis, "
      "which has all that is timed; the joint form is timed with its networks."
    )
  if config.langevin.num_steps <= _SHORT:
    raise errors.ConfigError(
      f"config.langevin.num_steps={config.langevin.num_steps}: expected "
      f"{_SHORT + 1} or more, to time what one step adds."
    )
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  programs = {"fast": _compile(config, mesh)}
  if with_literal:
    with conv_ops.literal():
      programs["literal"] = _compile(config, mesh)
  rates, rounds, literal = _time_in_turns(config, mesh, programs, num_rounds)
  return {
    "config": config.to_dict(),
    "machine": {
      "devices": mesh.size,
      "device_kind": mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
    },
    "rounds": num_rounds,
    "matrix_product_gflops": statistics.median(rates),
    "work": {
      name: row._asdict()
      for name, row in rows(config, rates, rounds, literal).items()
    },
    "compile_seconds": {k: v.compile_seconds for k, v in programs.items()},
    "training_step_bytes": {k: v.step_bytes for k, v in programs.items()},
    "process_peak_bytes": _peak_bytes(mesh),
  }


def _compile(config: ml_collections.ConfigDict, mesh: Mesh) -> _Programs:
  """Compiles all that is timed, in the formulation that is in force."""
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  state = compile_lib.init_state(config, objective, abstract)
  calls = _update_calls(config, mesh, objective.networks, state)
  kept = [jax.tree.map(jnp.copy, state)]
  for name, num_steps in _lengths(config).items():
    calls[f"joint_{name}"] = _joint_call(
      config, mesh, objective.networks, state, num_steps
    )
    start = time.perf_counter()
    calls[f"step_{name}"], compiled = _step_call(config, mesh, kept, num_steps)
    compile_seconds = time.perf_counter() - start
  return _Programs(calls, compile_seconds, _program_bytes(compiled))


def _lengths(config: ml_collections.ConfigDict) -> dict[str, int]:
  """Langevin steps of the two runs whose difference is timed."""
  return {"short": _SHORT, "long": config.langevin.num_steps}


def _step_call(config, mesh, kept, num_steps):
  """A training step, which uses up the state in `kept` and renews it."""
  config = ml_collections.ConfigDict(config)
  config.langevin.num_steps = num_steps
  objective = objectives.make(config, mesh)
  shape = (config.data.image_size, config.data.image_size, config.data.channels)
  rows = config.train.batch_size // jax.process_count()
  noise = np.random.default_rng(0).integers(0, 256, (1, rows, *shape))
  images = sharding.global_batches(noise.astype(np.uint8), mesh)
  rng, steps = jax.random.key(config.seed), np.arange(1)
  compiled = (
    compile_lib.compile_steps(objective, kept[0])
    .lower(kept[0], images, rng, steps)
    .compile()
  )

  def call():
    kept[0], metrics, _ = compiled(kept[0], images, rng, steps)
    return metrics

  return call, compiled


def _joint_call(config, mesh, networks, state, num_steps):
  """Chains that move z too; scales are those of refinement."""
  chain = langevin.Settings(
    num_steps, 1e-4, 5e-3, temperature=1e-3, max_drift_y=2.5, update_z=True
  )

  plan = chains_lib.Plan(chain)

  def run(variables, rngs):
    first = chains_lib.start(networks, plan, rngs)
    return chains_lib.advance(networks, plan, variables, rngs, first)[0]

  rngs = rng_lib.per_index(
    jax.random.key(0), jnp.arange(config.train.batch_size)
  )
  return _bind(
    chains_lib.over_devices(run, mesh),
    networks.variables(state, "raw"),
    rngs,
  )


def _update_calls(config, mesh, networks, state):
  """The updates of both networks."""
  batch = (config.train.batch_size, *networks.image_shape)
  x = jax.random.uniform(jax.random.key(1), batch, minval=-1.0)
  z = jax.random.normal(jax.random.key(2), (batch[0], *networks.latent_shape))
  return {
    "hat_update": _bind(
      hat_learning.make_hat_update(config, mesh, networks),
      state.hat,
      x,
      0.5 * x,
    ),
    "generator_update": _bind(
      synthesis.make_generator_update(config, mesh, networks),
      state.generator,
      state.generator_stats,
      z,
      x,
    ),
  }


def _bind(fn, *args):
  """Compiles `fn` for its arguments and returns a call without any."""
  compiled = jax.jit(fn).lower(*args).compile()
  return lambda: compiled(*args)


def _time_in_turns(config, mesh, programs, num_rounds):
  """Returns rates and seconds of each round, and seconds of the literal ones.

  The literal formulations are so slow that they are timed in one round.
  """
  calls = {kind: compiled.calls for kind, compiled in programs.items()}
  product = _matrix_product(config, mesh)
  product_gflop = 2 * _MATRIX**3 * mesh.size / 1e9
  rates, rounds = [], []
  literal = jax.tree.map(_seconds, calls.get("literal"))
  for i in range(num_rounds):
    rates.append(product_gflop / _seconds(product))
    rounds.append(jax.tree.map(_seconds, calls["fast"]))
    print(f"round {i + 1} of {num_rounds}", file=sys.stderr, flush=True)
  return rates, rounds, literal


def _matrix_product(config, mesh):
  """A square matrix product on every device, in the dtype of the networks."""
  shape = mesh.size, _MATRIX, _MATRIX
  a = jax.random.normal(jax.random.key(0), shape, jnp.dtype(config.model.dtype))
  split = sharding.split(lambda a, b: a[0][None] @ b[0], mesh)
  return _bind(split, a, a)


def _seconds(call: Callable[[], Any]) -> float:
  """Mean wall seconds of a call: of as many as fill a round's share."""
  first = _wall_seconds(call, 1)
  if first > _ROUND_SECONDS:
    return first  # Long enough not to feel that it was the first.
  once = _wall_seconds(call, 1)
  return _wall_seconds(call, max(1, round(_ROUND_SECONDS / once)))


def _wall_seconds(call: Callable[[], Any], repeats: int) -> float:
  start = time.perf_counter()
  for _ in range(repeats):
    # One at a time, as the steps of a chain: on a CPU calls would overlap.
    jax.block_until_ready(call())
  return (time.perf_counter() - start) / repeats


def rows(
  config: ml_collections.ConfigDict,
  rates: Sequence[float],
  rounds: Sequence[dict[str, float]],
  literal: dict[str, float] | None,
) -> dict[str, Row]:
  """The table: what each piece took, beside what it needs.

  Args:
    config: that was measured.
    rates: of matrix products, GFLOP/s, of each round.
    rounds: seconds of the programs, of each round.
    literal: seconds of the literal programs, if they were timed.
  """
  more = config.langevin.num_steps - _SHORT
  one_step = lambda times, name: (
    (times[f"{name}_long"] - times[f"{name}_short"]) / more
  )
  joint = functools.partial(flops.langevin_step, joint=True)
  work = {
    "Langevin step, synthesis": (
      lambda times: one_step(times, "step"),
      [flops.langevin_step],
    ),
    "Langevin step, joint": (lambda times: one_step(times, "joint"), [joint]),
    "hat update": (lambda times: times["hat_update"], [flops.hat_update]),
    "generator update": (
      lambda times: times["generator_update"],
      [flops.generator_update],
    ),
    "both updates": (
      lambda times: times["hat_update"] + times["generator_update"],
      [flops.hat_update, flops.generator_update],
    ),
    "training step": (lambda times: times["step_long"], [flops.training_step]),
  }
  return {
    title: _row(
      rates,
      [seconds_of(times) for times in rounds],
      literal and seconds_of(literal),
      sum(count(config, rules=flops.UP_AT_FULL_SIZE) for count in counts) / 1e9,
      sum(count(config, rules=flops.MINIMAL) for count in counts) / 1e9,
    )
    for title, (seconds_of, counts) in work.items()
  }


def _row(
  rates: Sequence[float],
  fast: Sequence[float],
  literal: float | None,
  floor: float,
  minimal: float,
) -> Row:
  """Medians over rounds; a cost is of the rate in the same round."""
  seconds = statistics.median(fast)
  cost = statistics.median(
    a * rate for a, rate in zip(fast, rates, strict=True)
  )
  return Row(
    seconds=seconds,
    literal_seconds=literal,
    speedup=literal and literal / seconds,
    floor_gflop=floor,
    minimal_gflop=minimal,
    over_floor=cost / floor,
    over_minimal=cost / minimal,
  )


def _program_bytes(compiled: Any) -> int | None:
  """Memory of a compiled program a device, where its compiler says it."""
  memory = compiled.memory_analysis()
  if memory is None:
    return None
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def _peak_bytes(mesh: Mesh) -> int:
  """Peak memory of the first device, or of this process on a CPU."""
  stats = mesh.devices.flat[0].memory_stats()
  if stats and "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(result: dict[str, Any]) -> str:
  """Formats what `measure` returns for people."""
  config, machine = result["config"], result["machine"]
  size = config["data"]["image_size"]
  lines = [
    f"{machine['devices']} x {machine['device_kind']}, jax {machine['jax']}, "
    f"{config['model']['dtype']}: "
    f"{result['matrix_product_gflops']:.0f} GFLOP/s in matrix products",
    f"{size} x {size} pixels, width {config['model']['width']}, batch "
    f"{config['train']['batch_size']}, {config['langevin']['num_steps']} "
    f"Langevin steps; medians of {result['rounds']} rounds; floors in GFLOP",
    f"{'':26}{'seconds':>10}{'literal':>10}{'speed-up':>10}"
    f"{'floor':>9}{'x floor':>9}{'minimal':>9}{'x minimal':>11}",
  ]
  for name, row in result["work"].items():
    literal = "         -         -"
    if row["speedup"]:
      literal = f"{row['literal_seconds']:10.4f}{row['speedup']:10.2f}"
    lines.append(
      f"{name:26}{row['seconds']:10.4f}{literal}{row['floor_gflop']:9.3g}"
      f"{row['over_floor']:9.2f}{row['minimal_gflop']:9.3g}"
      f"{row['over_minimal']:11.2f}"
    )
  for kind, seconds in result["compile_seconds"].items():
    memory = result["training_step_bytes"][kind] or 0
    lines.append(
      f"training step, {kind}: compiled in {seconds:.1f} s, "
      f"{memory / 2**30:.2f} GiB a device (by its compiler)"
    )
  peak = result["process_peak_bytes"] / 2**30
  lines.append(f"peak memory of this process or device: {peak:.2f} GiB")
  return "\n".join(lines)


def main(argv: list[str]) -> int:
  """Runs the benchmark; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  options = flags.FLAGS
  config = ml_collections.ConfigDict(options.config)
  config.model.width = options.width or config.model.width
  config.train.batch_size = options.batch
  config.langevin.num_steps = options.langevin_steps
  try:
    config_lib.check(config)
    result = measure(config, options.rounds, options.literal)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(table(result))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
  return 0


def run() -> None:
  """Entry point of the command."""
  # Defined here, not at the top: `main.py` has a flag --config too.
  config_flags.DEFINE_config_file(
    "config",
    "configs/cifar10.py",
    "A config of synthesis. Fields are overridden by "
    "--config.group.field=value.",
    lock_config=True,
  )
  flags.DEFINE_integer(
    "width", None, "Base width of the networks (default: the config's)."
  )
  flags.DEFINE_integer(
    "batch", 8, "Images, and chains, over all devices.", lower_bound=1
  )
  flags.DEFINE_integer(
    "langevin_steps", 8, "Of the training step that is timed.", lower_bound=3
  )
  flags.DEFINE_integer(
    "rounds", 9, "Medians are taken over as many rounds.", lower_bound=1
  )
  flags.DEFINE_boolean(
    "literal", True, "Time the literal formulations too: many times slower."
  )
  flags.DEFINE_string("json", None, "Also write the figures to this file.")
  app.run(main)


if __name__ == "__main__":
  run()
