"""Times all forms of the convolutions on one device and writes a table.

  python experiments/speed/gpu.py --out=DIR

A row is a form in one precision at one size. Its columns are a Langevin step of
synthesis, a joint Langevin step, both updates and the whole training step. A
Langevin step is the mean over a chain in one program. Programs of a group of
rows (a size and a precision) are compiled in parallel and then timed one after
the other. The tables are written after each row, and no group starts after
`--seconds`, so a run that is cut off keeps what it has measured. The columns
take four programs to compile for each row; `--columns`, `--forms`, `--sizes`
and `--precisions` choose fewer.
"""

import concurrent.futures
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags
from jax.sharding import Mesh

from hatebm_jax import chains as chains_lib
from hatebm_jax import flops, langevin, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.benchmark import programs
from hatebm_jax.configs import celeba64, cifar10, imagenet128
from hatebm_jax.models import conv_ops
from hatebm_jax.objectives import synthesis

COLUMNS = {
  "langevin_step": "Langevin step, synthesis",
  "joint_step": "Langevin step, joint",
  "updates": "both updates",
  "training_step": "training step",
}

flags.DEFINE_string("out", None, "The tables are written into this folder.")
flags.mark_flag_as_required("out")
flags.DEFINE_list("sizes", ["32", "128", "64"], "Image sizes, in this order.")
flags.DEFINE_list(
  "precisions",
  ["bfloat16", "tensorfloat32", "float32"],
  "Precisions, in this order. float32 is the highest precision.",
)
flags.DEFINE_list("forms", list(conv_ops.FORMS), "Forms, in this order.")
flags.DEFINE_list("columns", list(COLUMNS), "Parts that are timed.")
flags.DEFINE_integer("width", None, "Base width in place of the published one.")
flags.DEFINE_integer("batch", None, "Batch in place of the one of the table.")
flags.DEFINE_integer("steps", 20, "Langevin steps of a chain.", lower_bound=2)
flags.DEFINE_integer("rounds", 5, "Medians are over so many.", lower_bound=1)
flags.DEFINE_integer(
  "seconds", 330, "No group of rows starts after this many seconds."
)
flags.DEFINE_integer("workers", 6, "Programs are compiled by so many threads.")

# Config, and the images of a batch on one device, by the size of the images.
SIZES = {32: (cifar10, 128), 64: (celeba64, 64), 128: (imagenet128, 16)}


class Group(NamedTuple):
  """Rows that are compiled and timed together."""

  size: int
  precision: str


def make_config(
  group: Group, form: str, options: Any
) -> ml_collections.ConfigDict:
  """Returns the config of a row."""
  module, batch = SIZES[group.size]
  config = module.get_config()
  config.unlock()
  config.model.width = options.width or config.model.width
  config.train.batch_size = options.batch or batch
  config.generator.bank_size = 2 * config.train.batch_size
  config.langevin.num_steps = options.steps
  config.model.conv_form = form
  half = group.precision == "bfloat16"
  config.model.dtype = "bfloat16" if half else "float32"
  return config


def langevin_steps(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> programs.Program:
  """Compiles a chain of synthesis, without the generator."""
  networks = synthesis.make_networks(config)
  plan = chains_lib.training_plan(config)

  def run(variables, rngs, x):
    hat_fn, _ = chains_lib.bind(networks, variables)
    first = langevin.State(x, jnp.zeros_like(x))
    return langevin.sample(rngs, hat_fn, lambda x: x, first, plan.settings)[0]

  batch = config.train.batch_size
  x = jax.random.normal(jax.random.key(1), (batch, *networks.image_shape))
  rngs = rng_lib.per_index(jax.random.key(0), jnp.arange(batch))
  return programs.bind(
    chains_lib.over_devices(run, mesh),
    networks.variables(state, "raw"),
    rngs,
    x,
  )


def both_updates(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> programs.Program:
  """Compiles the updates of hat and generator as one program."""
  hat, generator, x, z = programs.update_functions(config, mesh)

  def both(state, x, z):
    stats = state.generator_stats
    return hat(state.hat, x, 0.5 * x), generator(state.generator, stats, z, x)

  return programs.bind(both, state, x, z)


def training_step(
  config: ml_collections.ConfigDict, mesh: Mesh, state: synthesis.State
) -> programs.Program:
  """Compiles the whole training step, whose calls train a copy of the state."""
  return programs.training_step(config, mesh, programs.copy(state))


PROGRAMS = {
  "langevin_step": langevin_steps,
  "joint_step": programs.joint_steps,
  "updates": both_updates,
  "training_step": training_step,
}


def compile_group(
  group: Group, options: Any, mesh: Mesh, state: Any
) -> dict[str, dict[str, Callable[[], Any] | str]]:
  """Compiles the programs of a group in parallel.

  Returns:
    By form and column the compiled program, or the message of its error.
  """

  def build(form, column):
    config = make_config(group, form, options)
    try:
      with jax.default_matmul_precision(group.precision):
        return PROGRAMS[column](config, mesh, state).call
    except Exception as error:  # A program that does not fit loses no others.
      return f"{type(error).__name__}: {str(error)[:200]}"

  with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
    # Columns come first, so that the forms share what they have in common.
    futures = {
      (form, column): pool.submit(build, form, column)
      for column in options.columns
      for form in options.forms
    }
  return {
    form: {column: futures[form, column].result() for column in options.columns}
    for form in options.forms
  }


def measure(
  call: Callable[[], Any] | str, rounds: int
) -> tuple[float | None, str | None]:
  """Returns the median seconds of a call, or the message of an error."""
  if isinstance(call, str):
    return None, call
  try:
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
      start = time.perf_counter()
      jax.block_until_ready(call())
      times.append(time.perf_counter() - start)
  except Exception as error:
    return None, f"{type(error).__name__}: {str(error)[:200]}"
  return statistics.median(times), None


def gflop(config: ml_collections.ConfigDict) -> dict[str, float]:
  """Returns the least arithmetic of each column, the same for all forms."""
  updates = flops.hat_update(config) + flops.generator_update(config)
  counts = {
    "langevin_step": flops.langevin_step(config),
    "joint_step": flops.langevin_step(config, joint=True),
    "updates": updates,
    "training_step": flops.training_step(config),
  }
  return {name: count / 1e9 for name, count in counts.items()}


def make_row(
  group: Group, form: str, calls: dict[str, Any], options: Any
) -> dict[str, Any]:
  """Times the programs of a row."""
  config = make_config(group, form, options)
  work = gflop(config)
  row = {
    **group._asdict(),
    "form": form,
    "width": config.model.width,
    "batch": config.train.batch_size,
    "langevin_steps": options.steps,
  }
  for column, call in calls.items():
    seconds, error = measure(call, options.rounds)
    if seconds and column in ("langevin_step", "joint_step"):
      seconds /= options.steps
    row[column] = {
      "seconds": seconds,
      "gflop": work[column],
      "gflop_per_second": seconds and work[column] / seconds,
      "error": error,
    }
  return row


def table(result: dict[str, Any]) -> str:
  """Formats the rows as Markdown."""
  machine = result["machine"]
  lines = [
    ", ".join(f"{name} {value}" for name, value in machine.items()),
    "",
    "Milliseconds, and in parentheses TFLOP/s of the least arithmetic.",
    "",
    "| pixels, width, batch | precision | form | "
    + " | ".join(COLUMNS.values())
    + " |",
    "|---" * (3 + len(COLUMNS)) + "|",
  ]
  for row in result["rows"]:
    cells = [
      f"{row['size']}, {row['width']}, {row['batch']}",
      row["precision"],
      row["form"],
    ]
    for column in COLUMNS:
      cell = row.get(column)
      if cell and cell["seconds"]:
        rate = cell["gflop_per_second"] / 1e3
        cells.append(f"{1e3 * cell['seconds']:.3f} ({rate:.3g})")
      else:
        cells.append("failed" if cell else "")
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def write(result: dict[str, Any], out: pathlib.Path) -> None:
  """Writes both tables."""
  out.mkdir(parents=True, exist_ok=True)
  (out / "forms.json").write_text(json.dumps(result, indent=2) + "\n")
  (out / "forms.md").write_text(table(result))


def main(argv: list[str]) -> None:
  """Runs the measurement."""
  del argv
  options, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out)
  mesh = sharding.make_mesh(jax.devices()[:1])
  device = mesh.devices.flat[0]
  result = {
    "machine": {
      "device": device.device_kind,
      "platform": device.client.platform_version.replace("\n", " "),
      "jax": jax.__version__,
    },
    "skipped": [],
    "rows": [],
  }
  start = time.perf_counter()
  say = functools.partial(print, file=sys.stderr, flush=True)
  groups = [
    Group(int(size), precision)
    for size in options.sizes
    for precision in options.precisions
  ]
  states = {}
  for group in groups:
    begun = time.perf_counter() - start
    if begun > options.seconds:
      say(f"{group}: skipped, {begun:.0f} s have passed")
      result["skipped"].append(group._asdict())
      write(result, out)
      continue
    if group.size not in states:
      config = make_config(group, "literal", options)
      states = {group.size: programs.start(config, mesh)}
    compiled = compile_group(group, options, mesh, states[group.size])
    took = time.perf_counter() - start - begun
    say(f"{group}: compiled in {took:.0f} s")
    for form in options.forms:
      row = make_row(group, form, compiled.pop(form), options)
      result["rows"].append({**row, "group_compile_seconds": took})
      write(result, out)
      say(table({**result, "rows": [row]}).splitlines()[-1])


if __name__ == "__main__":
  app.run(main)
