"""Command line: python -m hatebm_jax.benchmark [--config=NAME] [--width=W]."""

import json
import pathlib
import sys

import ml_collections
from absl import app, flags

from hatebm_jax import config as config_lib
from hatebm_jax import config_flag, errors
from hatebm_jax.benchmark import results, timing

config_flag.define("This is the synthesis config that is timed.")
flags.DEFINE_integer(
  "width",
  None,
  "This is the base width of the networks. The default is the config's.",
)
flags.DEFINE_integer(
  "batch",
  8,
  "A batch has this many images, and as many chains, over all devices.",
  lower_bound=1,
)
flags.DEFINE_integer(
  "langevin_steps",
  8,
  "The timed training step has this many Langevin steps.",
  lower_bound=timing.SHORT + 1,
)
flags.DEFINE_integer(
  "rounds", 9, "Medians are taken over this many rounds.", lower_bound=1
)
flags.DEFINE_boolean(
  "literal",
  True,
  "The literal forms are timed too. They are many times slower.",
)
flags.DEFINE_string("json", None, "The results are also written to this file.")


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
    file = pathlib.Path(options.json).expanduser()
    file.write_text(json.dumps(result, indent=2) + "\n")
  return 0


if __name__ == "__main__":
  config_flag.run(main, default="cifar10")
