r"""Asks the TPU compiler what a Langevin step costs in each form.

  python experiments/tpu_compile/forms.py --config=configs/cifar10.py \
    --config.train.batch_size=32

compiles the chains of a config, in bfloat16 and for one chip, and prints a row
of a table for each form of the convolutions. A step is the slope between chains
of 50 and of 10 Langevin steps. Libtpu must be installed. No number is measured.
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
_STEPS = (50, 10)  # Langevin steps of the two chains


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
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, form: str
) -> dict[str, int]:
  """Returns the cycles of a Langevin step, and those beside the steps."""
  config = ml_collections.ConfigDict(config)
  config.model.dtype, config.model.conv_form = "bfloat16", form
  totals, start = [], time.perf_counter()
  for num_steps in _STEPS:
    config.langevin.num_steps = num_steps
    found, _ = cycles.read(compile_chains(config, mesh).as_text())
    totals.append(sum(cost.total for cost in found))
  step = (totals[0] - totals[1]) / (_STEPS[0] - _STEPS[1])
  return {
    "cycles a step": round(step),
    "cycles beside the steps": round(totals[0] - _STEPS[0] * step),
    "instructions": sum(bool(cost.execution.loops) for cost in found),
    "compile time of both, s": round(time.perf_counter() - start),
  }


def main(_) -> None:
  """Prints the table."""
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)
  config = _CONFIG.value
  _, devices = topology_lib.find(_TOPOLOGY.value)
  mesh = sharding.make_mesh(devices)
  size, width = config.data.image_size, config.model.width
  title = f"{config.objective}, {size} px, w {width}, {config.train.batch_size}"
  for i, form in enumerate(_FORMS.value):
    row = estimate(config, mesh, form)
    if not i:
      print("| chain, images | form |", " | ".join(row), "|")
      print("|---" * (2 + len(row)) + "|")
    print(f"| {title} | {form} |", *map("{:,} |".format, row.values()))


if __name__ == "__main__":
  app.run(main)
