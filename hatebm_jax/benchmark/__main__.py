"""Command line: python -m hatebm_jax.benchmark [--config=FILE] [--width=W]."""

import json
import pathlib
import sys

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from hatebm_jax import config as config_lib
from hatebm_jax import errors
from hatebm_jax.benchmark import results, timing

config_flags.DEFINE_config_file(
  "config",
  "configs/cifar10.py",
  "Config of a synthesis. Fields are overridden by --config.group.field=value.",
  lock_config=True,
)
flags.DEFINE_integer(
  "width",
  None,
  "Base width of the networks. The default is the config's width.",
)
flags.DEFINE_integer(
  "batch",
  8,
  "Number of images and of chains over all devices.",
  lower_bound=1,
)
flags.DEFINE_integer(
  "langevin_steps",
  8,
  "Number of Langevin steps in the training step that is timed.",
  lower_bound=timing.SHORT + 1,
)
flags.DEFINE_integer(
  "rounds", 9, "Number of rounds that medians are taken over.", lower_bound=1
)
flags.DEFINE_boolean(
  "literal",
  True,
  "Also times the literal forms. They are many times slower.",
)
flags.DEFINE_string("json", None, "Also writes the results to this file.")


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
    result = timing.measure(config, options.rounds, options.literal)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(results.table(result))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
  return 0


if __name__ == "__main__":
  app.run(main)
