"""Checks the flags of the benchmark's command."""

import json

import child

# Each command line is parsed in a fork, because flags are parsed only once.
CODE = """
import json, os, sys
from absl import flags
from hatebm_jax import config_flag
from hatebm_jax.benchmark import __main__ as command

for given in {cases}:
  if not os.fork():
    sys.argv = ["benchmark", *config_flag.arguments(given, "cifar10")]
    flags.FLAGS(sys.argv)
    config = command.settings(flags.FLAGS)
    print(json.dumps([config.train.batch_size, config.langevin.num_steps,
                      config.model.width, *command.forms(flags.FLAGS)]))
    sys.stdout.flush()
    os._exit(0)
  assert os.wait()[1] == 0
"""


def test_what_is_timed():
  cases = [
    [],
    ["--config=digits", "--forms=auto"],
    ["--width=64", "--batch=4", "--langevin_steps=6", "--noliteral"],
    ["--config.train.batch_size=16", "--config.langevin.num_steps=7"],
    ["--batch=2", "--config.train.batch_size=16", "--forms=literal,dense"],
    ["--config=cifar10_retrofit", "--config.model.width=64", "--forms="],
  ]
  others = ["packed", "strided", "dense"]
  # Batch, Langevin steps, width, and the forms beside the main one.
  assert list(
    map(json.loads, child.python(CODE.format(cases=cases)).splitlines())
  ) == [
    [8, 50, 256, "literal", *others],
    [8, 10, 32, "auto"],
    [4, 6, 64, *others],
    [16, 7, 256, "literal", *others],
    [2, 50, 256, "literal", "dense"],
    [8, 100, 64],
  ]
