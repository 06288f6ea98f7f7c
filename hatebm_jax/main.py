"""Command line: python -m hatebm_jax.main --config=FILE --workdir=DIR."""

import pathlib
import signal
import sys

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from hatebm_jax import config as config_lib
from hatebm_jax import errors, sample, train
from hatebm_jax import evaluation as evaluate
from hatebm_jax.metrics import spaces
from hatebm_jax.run import checkpoint, distributed

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Experiment, a file of configs/. Fields are overridden by "
  "--config.group.field=value.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of the run: checkpoints, metrics, images."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "sample", "evaluate"],
  "train: train (or resume) the run, then draw and judge samples; sample: draw "
  "images from it; evaluate: measure them.",
)

_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "Several hosts that are no TPU pod: HOST:PORT of process 0.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "With --coordinator: how many processes."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "With --coordinator: which of them this one is, from 0."
)


def main(argv: list[str]) -> int:
  """Runs one mode; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  if not flags.FLAGS["verbosity"].present:
    # Orbax and clu log every detail; the progress lines are what people read.
    logging.set_verbosity(logging.WARNING)
    checkpoint.hide_threads()
  config, path = _CONFIG.value, pathlib.Path(_WORKDIR.value).absolute()
  try:
    config_lib.check(config)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  distributed.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  try:
    return _run(_MODE.value, config, path)
  except errors.UserError as error:
    logging.debug("", exc_info=True)
    print(f"error: {error}", file=sys.stderr)
  except KeyboardInterrupt:
    # JAX may be compiling; ending in order has crashed then.
    print(
      "Interrupted. The same command starts again, a run from its newest "
      "checkpoint.",
      file=sys.stderr,
    )
    distributed.leave_now(130)
  except OSError as error:
    # A full disk, a lost share: what a traceback shows is not what is wrong.
    logging.debug("", exc_info=True)
    print(
      f"error: {error}. Mend that, and start the same command again: a run "
      "goes on from its newest checkpoint.",
      file=sys.stderr,
    )
  distributed.leave_alone(1)
  return 1


def _run(
  mode: str, config: ml_collections.ConfigDict, path: pathlib.Path
) -> int:
  """Runs one mode; returns the exit status."""
  if mode == "train":
    stopped_by = train.train(config, path)
    if stopped_by:
      return 130 if stopped_by == signal.SIGINT else 0
  if mode == "evaluate" and config.metrics.samples:
    evaluate.write(config, path)
    return 0
  restored = sample.restore(config, path)
  if mode == "evaluate":
    evaluate.write(restored.config, path, restored)
    return 0
  drawn = sample.draw(restored)
  sample.write(restored, path, drawn)
  if mode == "train" and spaces.exists(restored.config):
    evaluate.write(restored.config, path, restored, drawn)
  return 0


def run() -> None:
  """Entry point of the command."""
  flags.mark_flags_as_required(["config", "workdir"])
  # Names of files may hold what stdout cannot print; stderr does this anyway.
  sys.stdout.reconfigure(errors="backslashreplace")
  app.run(main)


if __name__ == "__main__":
  run()
