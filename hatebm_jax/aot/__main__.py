r"""Command line: compiles a config's training step for a TPU slice.

  python -m hatebm_jax.aot --config=configs/imagenet128.py --topology=v4:2x2x4

libtpu (the extra `tpu`) is the compiler; no TPU is needed. One JSON object on
standard output says what the program needs.
"""

import json
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from hatebm_jax import config as config_lib
from hatebm_jax import errors
from hatebm_jax.aot import program

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


def main(argv: list[str]) -> int:
  """Prints the result; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  logging.set_verbosity(logging.WARNING)
  # The host works as a CPU here, whatever else it has. The program must be
  # compiled again for its time and its text, so the cache is off.
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
    result = program.check(flags.FLAGS.config, topology)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(json.dumps({"config": name, **result}, indent=2))
  return 0


if __name__ == "__main__":
  app.run(main)
