r"""Command line: compiles a config's training step for a TPU slice.

  python -m hatebm_jax.aot --config=imagenet128 --topology=v4:2x2x4

libtpu (the extra `tpu`) is the compiler; no TPU is needed. One JSON object on
standard output says what the program needs.
"""

import json
import sys

import jax
from absl import app, flags, logging

from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors
from hatebm_jax.aot import report
from hatebm_jax.run import files

config_flag.define("This is the config whose training step is compiled.")
flags.DEFINE_string(
  "topology",
  None,
  "This is the TPU slice, GENERATION:SHAPE in chips, such as v4:2x2x4 or "
  "v5e:4x4.",
)
flags.DEFINE_string(
  "hlo",
  None,
  "This is a file that the optimized HLO text is written to, for people who "
  "want to look at single instructions.",
)
flags.mark_flag_as_required("topology")


def main(argv: list[str]) -> int:
  """Prints the result; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  logging.set_verbosity(logging.WARNING)
  # The host works as a CPU here, whatever else it has. The program must be
  # compiled again for its time and its text, so the cache is off.
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)
  name = config_flag.label(flags.FLAGS["config"].config_filename)
  topology = flags.FLAGS.topology
  try:
    hlo_file = files.as_path(flags.FLAGS.hlo) if flags.FLAGS.hlo else None
    if hlo_file:
      hlo_file.write_text("")  # A file that cannot be written is found now.
    print(
      f"Compiling {name} for {topology}. A large config takes minutes.",
      file=sys.stderr,
      flush=True,
    )
    config_lib.check(flags.FLAGS.config)
    result = report.make(flags.FLAGS.config, topology, hlo_file)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(json.dumps({"config": name, **result}, indent=2))
  return 0


if __name__ == "__main__":
  config_flag.run(main)
