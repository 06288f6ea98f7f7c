"""Compiles a config's training step for a TPU slice and says what it needs.

The step is the one that `hatebm_jax.main` runs. No time here is a measurement:
two are bounds, and one is the compiler's own estimate.
"""

import importlib.metadata
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import chains, data, flops, objectives, sharding
from hatebm_jax import compile as compile_lib
from hatebm_jax.aot import costs, cycles, hlo
from hatebm_jax.aot import topology as topology_lib
from hatebm_jax.models import conv_ops
from hatebm_jax.run import device_errors

_NOTE = (
  "Nothing here is measured. bound_seconds_per_step is the larger of flops "
  "over peak rate and bytes over bandwidth of the main memory. Padding, "
  "copies and launches take more time. The TPU compiler's cost model knows "
  "these, and compiler_estimate adds up its cycles. It leaves out collectives "
  "between chips, and transfers that run beside other work. float32 "
  "convolutions run on the bfloat16 units, which is JAX's default precision."
)


def make(
  config: ml_collections.ConfigDict,
  topology: str,
  hlo_file: epath.Path | None = None,
) -> dict[str, Any]:
  """Compiles a config's training step for a TPU slice.

  Args:
    config: Config of the experiment.
    topology: Name of the slice, such as `v4:2x2x4`.
    hlo_file: Path of a file that the optimized HLO is written to, if any.

  Returns:
    What the program needs, by the names that the README of
    experiments/tpu_compile explains.

  Raises:
    TopologyError: If libtpu is missing, or it knows no such slice.
    ConfigError: If the config has no such step.
    DataError: If the batch cannot be split over the slice.
  """
  chip, devices = topology_lib.find(topology)
  mesh = sharding.make_mesh(devices)
  data.check_batch(config.train.batch_size, mesh.size)
  start = time.perf_counter()
  compiled = compile_step(config, mesh)
  seconds = time.perf_counter() - start
  text = compiled.as_text()
  if hlo_file:
    hlo_file.write_text(text)
  return {
    "objective": config.objective,
    "topology": topology,
    "chips": mesh.size,
    "chip_kind": devices[0].device_kind,
    "dtype": config.model.dtype,
    "batch_size": config.train.batch_size,
    "images_per_chip": config.train.batch_size // mesh.size,
    "langevin_steps": config.langevin.num_steps,
    **_arithmetic(config, compiled, text, chip, mesh.size),
    **_memory(compiled, chip),
    "compile_seconds": round(seconds, 1),
    "jax": jax.__version__,
    "libtpu": importlib.metadata.version("libtpu"),
    "note": _NOTE,
  }


def compile_step(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> jax.stages.Compiled:
  """Compiles the training step of a config for a mesh.

  Args:
    config: Config of the experiment.
    mesh: Mesh of the devices. They need not exist.

  Raises:
    DeviceError: If the compiler finds that the devices have too little memory.
  """
  # JAX's default backend here is the host, and not what the step is for.
  config = config.copy_and_resolve_references()
  config.model.conv_form = conv_ops.choose(config.model.conv_form, "tpu")
  objective = objectives.make(config, mesh)
  state = compile_lib.abstract_state(config, objective, mesh)
  size, num = config.data.image_size, config.train.batch_size
  images = jax.ShapeDtypeStruct(
    (1, num * objective.batches_per_step, size, size, config.data.channels),
    jnp.uint8,
    sharding=NamedSharding(mesh, P(None, sharding.AXIS)),
  )
  rng = jax.eval_shape(lambda: jax.random.key(config.seed))
  everywhere = NamedSharding(mesh, P())
  rng = jax.ShapeDtypeStruct(rng.shape, rng.dtype, sharding=everywhere)
  steps = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=everywhere)
  step_fn = compile_lib.compile_steps(objective, state)
  with device_errors.explained():
    return step_fn.lower(state, images, rng, steps).compile()


def _arithmetic(
  config, compiled, text: str, chip: topology_lib.Chip, num_chips: int
) -> dict[str, Any]:
  """Returns FLOPs, bytes and collectives of the program and their times."""
  run = list(hlo.walk(hlo.parse(text)))
  # A joint chain takes half of its first step before its loop and half of the
  # last step after it.
  loop = config.langevin.num_steps - chains.moves_z(config)
  count, moved = costs.flops(run), costs.traffic(run)
  times = {
    "flops": count / chip.peak_flops,
    "bytes": moved.main_memory / chip.bandwidth,
  }
  bound = max(times, key=times.get)
  return {
    "flops_per_chip_per_step": count,
    **_by_hand(config, count, num_chips),
    "flops_loops_once": costs.flops(run, loops_once=True),
    "flops_loops_once_by_xla": round(compiled.cost_analysis()["flops"]),
    "trip_counts": hlo.trip_counts(run),
    "bytes_per_chip_per_step": round(moved.main_memory),
    "bytes_with_on_chip_memory": round(moved.all),
    "collectives_per_step": costs.collectives(run)._asdict(),
    "collectives_in_loops": costs.collectives(run, in_loops=True)._asdict(),
    "bound": bound,
    "bound_seconds_per_step": times[bound],
    "seconds_of_flops": times["flops"],
    "seconds_of_bytes": times["bytes"],
    "compiler_estimate": cycles.summary(
      text, chip.clock, times["flops"] * chip.clock, loop
    ),
  }


def _by_hand(config, count: int, chips: int) -> dict[str, Any]:
  """Returns the count of `flops.py`, which exists for synthesis only."""
  if config.objective != "synthesis":
    return {}
  # costs.flops counts no taps on padding either.
  by_hand = flops.training_step(config, flops.Rules(padding=False)) / chips
  return {
    "flops_by_hand_per_chip_per_step": round(by_hand),
    "flops_over_by_hand": round(count / by_hand, 4),
  }


def _memory(
  compiled: jax.stages.Compiled, chip: topology_lib.Chip
) -> dict[str, Any]:
  """Returns the memory of a chip that the program takes, in bytes."""
  stats = compiled.memory_analysis()
  # The program itself lies in main memory too.
  peak = (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
    + stats.generated_code_size_in_bytes
  )
  return {
    "peak_memory_per_chip": peak,
    "memory_per_chip": chip.memory,
    "fits": peak <= chip.memory,
  }
