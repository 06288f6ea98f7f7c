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

from hatebm_jax import (
  data,
  errors,
  flops,
  langevin,
  objectives,
  sharding,
  train,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import layers
from hatebm_jax.objectives import hat_learning, synthesis

_SHORT = 2  # Langevin steps of the shorter of two runs
_MATRIX = 2048  # rows and columns of the product that measures the machine
_ROUND_SECONDS = 0.2  # at least, for each program in a round


class Row(NamedTuple):
  """Medians of a piece of work; seconds of one, on the whole batch.

  Attributes:
    seconds: of the fast formulation.
    literal_seconds: of the literal one, in the same rounds; None: not timed.
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
  config: ml_collections.ConfigDict, num_rounds: int = 5, literal: bool = True
) -> dict[str, Any]:
  """Runs the benchmark.

  Args:
    config: of a synthesis; its `langevin.num_steps` are those of the training
      step that is timed.
    num_rounds: in each, every program runs in turn; medians are over rounds.
    literal: time the literal formulations too.

  Returns:
    What `main` prints as JSON.

  Raises:
    ConfigError: if the config asks for fewer than 3 Langevin steps.
  """
  if config.langevin.num_steps <= _SHORT:
    raise errors.ConfigError(
      f"config.langevin.num_steps={config.langevin.num_steps}: expected "
      f"{_SHORT + 1} or more, to time what one step adds."
    )
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  programs = {"fast": _compile(config, mesh)}
  if literal:
    with layers.literal():
      programs["literal"] = _compile(config, mesh)
  rates, rounds = _time_in_turns(config, mesh, programs, num_rounds)
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
      name: row._asdict() for name, row in rows(config, rates, rounds).items()
    },
    "compile_seconds": {k: v.compile_seconds for k, v in programs.items()},
    "training_step_bytes": {k: v.step_bytes for k, v in programs.items()},
    "process_peak_bytes": _peak_bytes(mesh),
  }


def _compile(config: ml_collections.ConfigDict, mesh: Mesh) -> _Programs:
  """Compiles all that is timed, in the formulation that is in force."""
  objective = objectives.make(config, mesh)
  abstract = train.abstract_state(config, objective, mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  init = jax.jit(objective.init, out_shardings=shardings)
  state = init(jax.random.key(config.seed))
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
    train.compile_steps(objective, kept[0])
    .lower(kept[0], images, rng, steps)
    .compile()
  )

  def call():
    kept[0], metrics, _ = compiled(kept[0], images, rng, steps)
    return metrics

  return call, compiled


def _joint_call(config, mesh, networks, state, num_steps):
  """Chains that move z too; scales are those of refinement."""
  settings = langevin.Settings(
    num_steps, 1e-4, 5e-3, temperature=1e-3, max_drift_y=2.5, update_z=True
  )

  def chains(variables, rngs):
    hat_variables, generator_variables = variables
    return langevin.sample(
      rngs,
      lambda x: networks.hat.apply(hat_variables, x),
      lambda z: networks.generator.apply(generator_variables, z),
      langevin.init_state(rngs, networks.latent_shape, networks.image_shape),
      settings,
    )[0]

  rngs = rng_lib.per_index(
    jax.random.key(0), jnp.arange(config.train.batch_size)
  )
  return _bind(
    sharding.split(chains, mesh, replicated=(0,)),
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
  """Returns the matrix-product rates and the seconds, of each round."""
  calls = {kind: compiled.calls for kind, compiled in programs.items()}
  product = _matrix_product(config, mesh)
  product_gflop = 2 * _MATRIX**3 * mesh.size / 1e9
  num_products, repeats = _repeats(product), jax.tree.map(_repeats, calls)
  rates, rounds = [], []
  for i in range(num_rounds):
    rates.append(product_gflop / _seconds(product, num_products))
    rounds.append(jax.tree.map(_seconds, calls, repeats))
    print(f"round {i + 1} of {num_rounds}", file=sys.stderr, flush=True)
  return rates, rounds


def _matrix_product(config, mesh):
  """A square matrix product on every device, in the dtype of the networks."""
  shape = mesh.size, _MATRIX, _MATRIX
  a = jax.random.normal(jax.random.key(0), shape, jnp.dtype(config.model.dtype))
  split = sharding.split(lambda a, b: a[0][None] @ b[0], mesh)
  return _bind(split, a, a)


def _repeats(call: Callable[[], Any]) -> int:
  """Calls that fill a round's share; the first call warms up."""
  jax.block_until_ready(call())
  return max(1, round(_ROUND_SECONDS / _seconds(call, 1)))


def _seconds(call: Callable[[], Any], repeats: int) -> float:
  """Mean wall seconds of a call."""
  start = time.perf_counter()
  for _ in range(repeats):
    result = call()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / repeats


def rows(config, rates, rounds) -> dict[str, Row]:
  """The table: what each piece took, beside what it needs."""
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
      {
        kind: [seconds_of(times[kind]) for times in rounds]
        for kind in rounds[0]
      },
      sum(count(config, rules=flops.UP_AT_FULL_SIZE) for count in counts) / 1e9,
      sum(count(config, rules=flops.MINIMAL) for count in counts) / 1e9,
    )
    for title, (seconds_of, counts) in work.items()
  }


def _row(
  rates: Sequence[float],
  seconds: dict[str, Sequence[float]],
  floor: float,
  minimal: float,
) -> Row:
  """Medians over rounds; ratios are taken within a round.

  Args:
    rates: of matrix products, GFLOP/s, of each round.
    seconds: of each round, `fast` and perhaps `literal`.
    floor: GFLOP.
    minimal: GFLOP.
  """
  fast, literal = seconds["fast"], seconds.get("literal")
  cost = statistics.median(
    a * rate for a, rate in zip(fast, rates, strict=True)
  )
  row = Row(
    seconds=statistics.median(fast),
    literal_seconds=None,
    speedup=None,
    floor_gflop=floor,
    minimal_gflop=minimal,
    over_floor=cost / floor,
    over_minimal=cost / minimal,
  )
  if literal is None:
    return row
  ratios = [b / a for a, b in zip(fast, literal, strict=True)]
  return row._replace(
    literal_seconds=statistics.median(literal),
    speedup=statistics.median(ratios),
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


_CONFIG = config_flags.DEFINE_config_file(
  "config",
  "configs/cifar10.py",
  "A config of synthesis. Fields are overridden by --config.group.field=value.",
  lock_config=True,
)
_WIDTH = flags.DEFINE_integer(
  "width", None, "Base width of the networks (default: the config's)."
)
_BATCH = flags.DEFINE_integer(
  "batch", 8, "Images, and chains, over all devices.", lower_bound=1
)
_LANGEVIN_STEPS = flags.DEFINE_integer(
  "langevin_steps", 12, "Of the training step that is timed.", lower_bound=3
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 5, "Medians are taken over as many rounds.", lower_bound=1
)
_LITERAL = flags.DEFINE_boolean(
  "literal", True, "Time the literal formulations too, which takes longer."
)
_JSON = flags.DEFINE_string(
  "json", None, "Also write the figures to this file."
)


def main(argv: list[str]) -> int:
  """Runs the benchmark; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  config = ml_collections.ConfigDict(_CONFIG.value)
  config.model.width = _WIDTH.value or config.model.width
  config.train.batch_size = _BATCH.value
  config.langevin.num_steps = _LANGEVIN_STEPS.value
  try:
    result = measure(config, _ROUNDS.value, _LITERAL.value)
  except (data.DataError, errors.ConfigError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(table(result))
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")
  return 0


if __name__ == "__main__":
  app.run(main)
