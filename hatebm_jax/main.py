"""Trains a run, samples from it or evaluates it, or checks it before that.

  python -m hatebm_jax.main --config=NAME_OR_FILE --workdir=DIR

The installed command `hatebm` does the same.
"""

import sys
from collections.abc import Collection

import jax
import ml_collections
from absl import app, flags, logging
from etils import epath

from hatebm_jax import (
  chains,
  config_flag,
  errors,
  evaluation,
  restore,
  sample,
  train,
)
from hatebm_jax import check as check_lib
from hatebm_jax import config as config_lib
from hatebm_jax.run import (
  device_errors,
  distributed,
  files,
  signals,
  standard_streams,
  thread_errors,
  weights,
)

_CONFIG = config_flag.define(
  "This is the config of the run. It may be left out if --workdir holds a run: "
  "the run's own config is then used."
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "This directory holds the run: checkpoints, metrics and images. "
  "--mode=sample and --mode=evaluate also take the directory of a release.",
)
_OUT = flags.DEFINE_string(
  "out",
  None,
  "--mode=sample and --mode=evaluate write into this directory instead of the "
  "workdir, which may then be read-only.",
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "sample", "evaluate", "check"],
  "`train` trains or resumes the run, then draws and evaluates samples. "
  "`sample` draws images from the run. `evaluate` measures how good they are. "
  "`check` lists all problems that training would have, and writes nothing.",
)
_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "",
  "--mode=check compiles the training step for this TPU slice, such as "
  "v5e:4x4, and says what memory and time it needs.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "This is HOST:PORT of process 0. The processes of a TPU pod, of Slurm and of "
  "Open MPI find it without the flag.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes",
  None,
  "This is the number of processes. It goes with --coordinator. "
  "--num_processes=1 alone starts one process for itself, even under Slurm.",
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id",
  None,
  "This is the number of this process, counted from 0. It goes with "
  "--coordinator.",
)


def main(argv: list[str]) -> int:
  """Runs one mode; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
  if not flags.FLAGS["verbosity"].present:
    # Orbax and clu log every detail, but people read the progress lines.
    logging.set_verbosity(logging.WARNING)
    thread_errors.hide()
  config = _CONFIG.value
  try:
    _check_topology()
    path = files.as_path(_WORKDIR.value)
    out = _output_place(path)
    if _MODE.value != "check":  # It lists all wrong fields.
      config_lib.check(config)
    distributed.start(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  try:
    if _MODE.value == "check":
      return _check(config, path)
    signals.end_at_sigterm(distributed.leave_now)
    device_errors.check_devices()
    with device_errors.explained():
      return _run(_MODE.value, config, path, out)
  except errors.UserError as error:
    logging.debug("", exc_info=True)
    print(f"error: {error}", file=sys.stderr)
  except KeyboardInterrupt:
    # JAX may be compiling, and an orderly end has crashed then.
    print(
      "Interrupted. The same command starts again. It resumes a run from its "
      "newest checkpoint.",
      file=sys.stderr,
    )
    distributed.leave_now(130)
  except OSError as error:
    # The disk is full or a share is lost. A traceback would not show that.
    logging.debug("", exc_info=True)
    print(
      f"error: {error}. Correct this and start the same command again. It "
      "resumes a run from its newest checkpoint.",
      file=sys.stderr,
    )
  distributed.leave_alone(1)
  return 1


def _check_topology() -> None:
  """Refuses a flag that would have no effect.

  Raises:
    ConfigError: If a TPU slice is named for something else than a check.
  """
  if _TOPOLOGY.value and _MODE.value != "check":
    raise errors.ConfigError(
      f"--topology={_TOPOLOGY.value} goes with --mode=check. Leave it away: "
      "a run takes the devices that are there."
    )


def _output_place(path: epath.Path) -> epath.Path:
  """Returns the folder that samples and figures are written into.

  Args:
    path: Path of the workdir.

  Raises:
    ConfigError: If training is asked to write elsewhere.
  """
  if _OUT.value is None:
    return path
  if _MODE.value in ("train", "check"):
    raise errors.ConfigError(
      f"--out={_OUT.value} goes with --mode=sample and --mode=evaluate. "
      "Training writes into --workdir: leave --out away."
    )
  return files.as_path(_OUT.value)


def _check(config: ml_collections.ConfigDict, path: epath.Path) -> int:
  """Checks a run before it is started; returns the exit status."""
  problems = check_lib.check(config, path, _TOPOLOGY.value)
  for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
  count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
  print(f"{count if problems else 'No problem'} found.")
  return 1 if problems else 0


def _run(
  mode: str,
  config: ml_collections.ConfigDict,
  path: epath.Path,
  out: epath.Path,
) -> int:
  """Runs one mode; returns the exit status."""
  if mode == "train":
    weights.refuse_training(path)
    restore.check_step(config, path)
    chains.evaluation_plan(config)  # Samples are drawn after the training.
    if evaluation.has_network(config):
      evaluation.check(config)
    stopped_by = train.train(config, path)
    if stopped_by:
      # Schedulers start a run again whose status is not 0.
      return 128 + stopped_by
  if jax.process_index() == 0:
    files.check_writable(out / "samples" if mode == "sample" else out)
  if mode == "evaluate" and config.metrics.samples:
    evaluation.write(evaluation.evaluate_file(config), out)
    return 0
  # Training has taken up every field that the command line sets.
  given = () if mode == "train" else config_flag.given(flags.FLAGS["config"])
  if mode == "evaluate" and config.sample.checkpoint == "all":
    _evaluate_checkpoints(config, path, out, given)
    return 0
  restored = sample.restore(config, path, given=given)
  if mode == "evaluate":
    _evaluate(restored, None, out)
    return 0
  drawn = sample.read_or_draw(restored, out)
  if mode == "train" and evaluation.has_network(restored.config):
    _evaluate(restored, drawn, out)
  return 0


def _evaluate_checkpoints(
  config: ml_collections.ConfigDict,
  path: epath.Path,
  out: epath.Path,
  given: Collection[str],
) -> None:
  """Measures all checkpoints of a run; points that are there are kept."""
  note = lambda curve: evaluation.save_curve(curve, out)
  known = evaluation.read_curve(out)
  curve = evaluation.measure_checkpoints(config, path, known, note, given)
  evaluation.write_curve(curve, out)


def _evaluate(
  restored: sample.Restored, drawn: sample.Drawn | None, out: epath.Path
) -> None:
  """Evaluates a run; what is measured is kept if a later part fails."""
  note = lambda result: evaluation.save(result, out)
  evaluation.write(evaluation.evaluate(restored, drawn, note), out)


def run() -> None:
  """Runs the command."""
  flags.mark_flag_as_required("workdir")
  standard_streams.make_lasting()
  config_flag.run(main)


if __name__ == "__main__":
  run()
