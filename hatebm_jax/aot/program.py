r"""Compiles a config's training step for a TPU slice, without a TPU.

  python -m hatebm_jax.aot --config=configs/imagenet128.py --topology=v4:2x2x4

libtpu (the extra `tpu`) compiles the very step that `hatebm_jax.main` runs. One
JSON object on standard output says what the program needs. Its times are bounds
from compilation, not measurements.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags, logging
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import config_flags

from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  data,
  errors,
  flops,
  objectives,
  sharding,
)
from hatebm_jax.aot import hlo

_EXAMPLES = "v4:2x2x4, v5e:4x4, v5p:2x2x1, v6e:4x4"
_NOTE = (
  "Bounds from compilation, not measurements: bound_seconds_per_step is the "
  "larger of flops over peak and bytes over bandwidth of the main memory; "
  "collectives between chips and padding to the hardware's tiles come on top. "
  "float32 convolutions run on the bfloat16 units, as JAX's default precision "
  "has it."
)


class Chip(NamedTuple):
  """A TPU chip, as Google's documentation of Cloud TPU has it.

  Attributes:
    peak_flops: bfloat16 FLOP/s.
    bandwidth: of the main memory (HBM), bytes/s.
    memory: main memory, bytes.
    setup: libtpu's name of the set-up in which a device is a whole chip.
  """

  peak_flops: float
  bandwidth: float
  memory: int
  setup: str


# v2 and v3 are left out: there a device is half a chip.
_CHIPS = {
  "v4": Chip(275e12, 1228e9, 32 * 2**30, "megacore"),
  "v5e": Chip(197e12, 819e9, 16 * 2**30, "default"),
  "v5p": Chip(459e12, 2765e9, 95 * 2**30, "megacore"),
  "v6e": Chip(918e12, 1640e9, 32 * 2**30, "default"),
}


class TopologyError(errors.UserError):
  """A TPU slice that cannot be compiled for."""


def check(config: ml_collections.ConfigDict, topology: str) -> dict[str, Any]:
  """Compiles a config's training step for a TPU slice.

  Args:
    config: of the experiment.
    topology: `GENERATION:SHAPE`, such as `v4:2x2x4`.

  Returns:
    What the README of experiments/tpu_compile explains, by name.

  Raises:
    TopologyError: libtpu is missing, or knows no such slice.
    ConfigError, DataError: of the config.
  """
  chip, devices = _devices(topology)
  mesh = sharding.make_mesh(devices)
  data.check_batch(config.train.batch_size, mesh.size)
  start = time.perf_counter()
  compiled = compile_step(config, mesh)
  seconds = time.perf_counter() - start
  return {
    "objective": config.objective,
    "topology": topology,
    "chips": mesh.size,
    "chip_kind": devices[0].device_kind,
    "dtype": config.model.dtype,
    "batch_size": config.train.batch_size,
    "images_per_chip": config.train.batch_size // mesh.size,
    "langevin_steps": config.langevin.num_steps,
    **_arithmetic(config, compiled, chip, mesh.size),
    **_memory(compiled, chip),
    "compile_seconds": round(seconds, 1),
    "jax": jax.__version__,
    "libtpu": importlib.metadata.version("libtpu"),
    "note": _NOTE,
  }


def compile_step(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> jax.stages.Compiled:
  """Compiles the training step of `train.py` for a mesh."""
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
  return step_fn.lower(state, images, rng, steps).compile()


def _devices(topology: str) -> tuple[Chip, list[jax.Device]]:
  """Returns the chip of a TPU slice and its devices, one a chip."""
  chip = _CHIPS.get(topology.partition(":")[0])
  if not chip:
    raise TopologyError(
      f"--topology={topology}: expected GENERATION:SHAPE with one of "
      f"{', '.join(_CHIPS)}, such as {_EXAMPLES}"
    )
  if not importlib.util.find_spec("libtpu"):
    raise TopologyError(
      "libtpu, the TPU compiler, is not installed: pip install -e '.[tpu]'"
    )
  # libtpu would ask the metadata server of a TPU host what it runs on, and
  # would let one process alone load it.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v4-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, chip_config_name=chip.setup
    )
  except jax.errors.JaxRuntimeError as error:
    raise TopologyError(
      f"--topology={topology}: libtpu knows no such slice ({error}). Known "
      f"ones are {_EXAMPLES}"
    ) from error
  return chip, list(description.devices)


def _arithmetic(config, compiled, chip: Chip, chips: int) -> dict[str, Any]:
  """FLOPs, bytes and collectives of the program, and what they bound."""
  run = list(hlo.walk(hlo.parse(compiled.as_text())))
  count, moved = hlo.flops(run), hlo.traffic(run)
  times = {
    "flops": count / chip.peak_flops,
    "bytes": moved.main_memory / chip.bandwidth,
  }
  bound = max(times, key=times.get)
  collectives = hlo.collectives(run)
  in_loops = hlo.collectives(run, in_loops=True)
  return {
    "flops_per_chip_per_step": count,
    **_by_hand(config, count, chips),
    "flops_loops_once": hlo.flops(run, loops_once=True),
    "flops_loops_once_by_xla": round(compiled.cost_analysis()["flops"]),
    "trip_counts": hlo.trip_counts(run),
    "bytes_per_chip_per_step": round(moved.main_memory),
    "bytes_with_on_chip_memory": round(moved.all),
    "collectives_per_step": collectives._asdict(),
    "collectives_in_loops": in_loops._asdict(),
    "bound": bound,
    "bound_seconds_per_step": times[bound],
    "seconds_of_flops": times["flops"],
    "seconds_of_bytes": times["bytes"],
  }


def _by_hand(config, count: int, chips: int) -> dict[str, Any]:
  """The count of the fast formulation, which exists for synthesis."""
  if config.objective != "synthesis":
    return {}
  # hlo.flops counts no taps on padding either.
  by_hand = flops.training_step(config, flops.Rules(padding=False)) / chips
  return {
    "flops_by_hand_per_chip_per_step": round(by_hand),
    "flops_over_by_hand": round(count / by_hand, 4),
  }


def _memory(compiled: jax.stages.Compiled, chip: Chip) -> dict[str, Any]:
  """Memory of a chip that the program takes, bytes."""
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


def main(argv: list[str]) -> int:
  """Prints the result; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  logging.set_verbosity(logging.WARNING)
  # The host is a CPU here, whatever else it has; and what is compiled must be
  # compiled anew, for its time and its text.
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)
  name, topology = flags.FLAGS["config"].config_filename, flags.FLAGS.topology
  try:
    print(
      f"Compiling {name} for {topology}. A large config takes minutes.",
      file=sys.stderr,
      flush=True,
    )
    config_lib.check(flags.FLAGS.config)
    result = check(flags.FLAGS.config, topology)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(json.dumps({"config": name, **result}, indent=2))
  return 0


def run() -> None:
  """Entry point of the command."""
  # Defined here, not at the top: `main.py` has a flag --config too.
  config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment, a file of configs/. Fields are overridden by "
    "--config.group.field=value.",
    lock_config=True,
  )
  flags.DEFINE_string(
    "topology",
    None,
    "TPU slice, GENERATION:SHAPE in chips, such as v4:2x2x4 or v5e:4x4.",
  )
  flags.mark_flags_as_required(["config", "topology"])
  app.run(main)


if __name__ == "__main__":
  run()
