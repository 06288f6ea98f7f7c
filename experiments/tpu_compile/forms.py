r"""Asks the TPU compiler what a Langevin step costs in each form.

  python experiments/tpu_compile/forms.py --config=configs/cifar10.py \
    --batches=32

compiles the chains of a config, in bfloat16 and for one chip, and prints a row
of a table for each number of images and each form of the convolutions. A step
is what the loop of the chain executes, divided by its iterations. Libtpu must
be installed. No number is measured.
"""

import time

import jax
import ml_collections
from absl import app, flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import chains, config_flag, objectives, sharding
from hatebm_jax import compile as compile_lib
from hatebm_jax.aot import cycles
from hatebm_jax.aot import topology as topology_lib
from hatebm_jax.models import conv_ops

_CONFIG = config_flag.define("This is the config whose chains are compiled.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:1x1", "Slice of one chip.")
_FORMS = flags.DEFINE_list("forms", list(conv_ops.FORMS), "Forms to compile.")
_BATCHES = flags.DEFINE_list("batches", None, "Numbers of images on the chip.")


def compile_chains(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> jax.stages.Compiled:
  """Compiles the chains of a config, with parameters and states as inputs."""
  objective = objectives.make(config, mesh)
  model, plan = objective.networks, chains.training_plan(config)
  state = compile_lib.abstract_state(config, objective, mesh)
  variables = jax.eval_shape(lambda state: model.variables(state, "raw"), state)
  rngs = jax.eval_shape(
    lambda: jax.random.split(jax.random.key(0), config.train.batch_size)
  )
  start = jax.eval_shape(lambda rngs: chains.start(model, plan, rngs), rngs)
  everywhere = NamedSharding(mesh, P())
  inputs = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    (variables, rngs, start),
  )

  def advance(variables, rngs, start):
    return chains.advance(model, plan, variables, rngs, start)

  return jax.jit(advance).lower(*inputs).compile()


def estimate(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  batch_size: int,
  form: str,
) -> dict[str, int]:
  """Returns the cycles of a Langevin step, and those beside the steps."""
  config, start = config.copy_and_resolve_references(), time.perf_counter()
  config.model.dtype, config.model.conv_form = "bfloat16", form
  config.train.batch_size = batch_size
  found, _ = cycles.read(compile_chains(config, mesh).as_text())
  # A joint chain takes half of its first step before its loop and half of the
  # last step after it.
  loop = config.langevin.num_steps - chains.moves_z(config)
  inside = [cost for cost in found if loop in cost.execution.loops]
  step = sum(cost.total for cost in inside) / loop
  return {
    "cycles a step": round(step),
    "cycles a step and image": round(step / batch_size),
    "cycles beside the steps": sum(cost.total for cost in found)
    - round(loop * step),
    "instructions": len(inside),
    "compile time, s": round(time.perf_counter() - start),
  }


def main(_) -> None:
  """Prints the table."""
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)
  config = _CONFIG.value
  _, devices = topology_lib.find(_TOPOLOGY.value)
  mesh = sharding.make_mesh(devices)
  size, width = config.data.image_size, config.model.width
  title, heads = f"{config.objective}, {size} px, w {width}", True
  for batch_size in map(int, _BATCHES.value or [config.train.batch_size]):
    for form in _FORMS.value:
      row = estimate(config, mesh, batch_size, form)
      if heads:
        print("| chain | images | form |", " | ".join(row), "|")
        print("|---" * (3 + len(row)) + "|")
      print(
        f"| {title} | {batch_size} | {form} |",
        *map("{:,} |".format, row.values()),
        flush=True,
      )
      heads = False


if __name__ == "__main__":
  app.run(main)
