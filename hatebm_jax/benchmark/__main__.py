"""Command line: python -m hatebm_jax.benchmark [--config=NAME] [--width=W]."""

import json
import pathlib
import sys

import ml_collections
from absl import app, flags

from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors
from hatebm_jax.benchmark import programs, results, timing
from hatebm_jax.models import conv_ops

_BATCH = 8  # images that a laptop can do

config_flag.define("This is the synthesis config that is timed.")
flags.DEFINE_integer(
  "width",
  None,
  "This is the base width of the networks. The default is the config's.",
)
flags.DEFINE_integer(
  "batch",
  None,
  "A batch has this many images, and as many chains, over all devices. The "
  f"default is {_BATCH}, which a laptop can do, or --config.train.batch_size "
  "if that is given.",
  lower_bound=1,
)
flags.DEFINE_integer(
  "langevin_steps",
  None,
  "The timed training step has this many Langevin steps. The default is the "
  "config's. Fewer steps shorten the benchmark, and the times of one Langevin "
  "step and of the updates stay those of the config.",
  lower_bound=programs.SHORT + 1,
)
flags.DEFINE_integer(
  "rounds",
  9,
  "Medians are taken over this many rounds. Fewer rounds shorten the "
  "benchmark.",
  lower_bound=1,
)
flags.DEFINE_list(
  "forms",
  list(conv_ops.FORMS),
  "These forms of the convolutions are timed beside the one of the config. "
  "`auto` is the form that suits the device. --forms=auto takes the least "
  "time.",
)
flags.DEFINE_boolean(
  "literal",
  True,
  "The literal form is one of the forms that are timed. On a CPU it is many "
  "times slower.",
)
flags.DEFINE_string("json", None, "The results are also written to this file.")


def settings(options: flags.FlagValues) -> ml_collections.ConfigDict:
  """Returns the config that is timed.

  Args:
    options: Flags of the command, after absl has parsed them.
  """
  config = options.config.copy_and_resolve_references()
  given = config_flag.given(options["config"])
  if options.batch or "train.batch_size" not in given:
    config.train.batch_size = options.batch or _BATCH
  if options.width:
    config.model.width = options.width
  if options.langevin_steps:
    config.langevin.num_steps = options.langevin_steps
  return config


def forms(options: flags.FlagValues) -> list[str]:
  """Returns the forms that are timed beside the main one.

  Args:
    options: Flags of the command, after absl has parsed them.
  """
  return [x for x in options.forms if options.literal or x != "literal"]


def main(argv: list[str]) -> int:
  """Runs the benchmark; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  options = flags.FLAGS
  config = settings(options)
  try:
    config_lib.check(config)
    result = timing.measure(config, options.rounds, forms(options))
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(results.table(result))
  if options.json:
    file = pathlib.Path(options.json).expanduser()
    file.write_text(json.dumps(result, indent=2) + "\n")
  return 0


if __name__ == "__main__":
  config_flag.run(main, default="cifar10")
