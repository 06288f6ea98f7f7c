"""Makes a row of the paper's tables: trains, evaluates, prints the table.

  python -m experiments.paper ROW [--workdir=DIR] [--seed=N] [--budget=tiny]

Without ROW it lists the rows. The same command goes on where it was stopped.
DIR/ROW holds the manifest, the figures and the table. Every stage is a command
that is printed, and that may be typed by itself.
"""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from experiments.paper import checks, manifest, rows, stages
from hatebm_jax import errors
from hatebm_jax.run import thread_errors

_WORKDIR = "runs/paper"


class StageError(errors.UserError):
  """A stage of a row has failed."""


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the command.

  Args:
    arguments: Arguments of the command; None takes those of the process.
  """
  # The accelerator belongs to the stages, which are processes of their own.
  jax.config.update("jax_platforms", "cpu")
  thread_errors.hide()
  args, overrides = _parser().parse_known_args(arguments)
  try:
    if not (args.row or args.again):
      print(listing())
      return
    name, options = _choose(args, overrides)
    if args.commands:
      plan = stages.plan(rows.ROWS[name], options)
      print("\n".join(map(manifest.shown, plan.stages().values())))
      return
    file = make(name, options)
    if args.again:
      _compare(pathlib.Path(args.again), file)
  except errors.UserError as error:
    sys.exit(f"error: {error}")


def listing() -> str:
  """Returns the rows and what each of them needs."""
  lines = ["ROW is one of these:"]
  lines += [
    f"  {name:28}{checks.needs(row)}" for name, row in rows.ROWS.items()
  ]
  return "\n".join([*lines, "--help describes the options."])


def make(name: str, options: rows.Options) -> pathlib.Path:
  """Runs the stages of a row that are not done yet.

  Args:
    name: Name of the row.
    options: What the user chose.

  Returns:
    The path of the manifest.

  Raises:
    StageError: If a stage fails.
    UserError: If data or weights are missing. This is said before training.
  """
  row, out = rows.ROWS[name], options.workdir / name
  checks.check_weights(row, options)
  before, records, is_checked = manifest.done(options), {}, False
  for key in stages.plan(row, options).stages():
    # A stage may have chosen what a later command has.
    plan = stages.plan(row, options)
    stage = plan.stages()[key]
    if stage not in plan.prepare and not is_checked:
      checks.check(row, options, plan)
      is_checked = True
    known = before.get(manifest.shown(stage))
    if known and all(x.exists() for x in stage.outputs):
      print(f"{name}, {key}: done before.", flush=True)
      records[key] = known
    else:
      records[key] = _run(name, stage)
    manifest.write(row, options, plan, records)
  print((out / stages.TABLE).read_text())
  print(f"The manifest is {out / manifest.FILE}.")
  return out / manifest.FILE


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.paper",
    description=__doc__,
    epilog=listing(),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("row", nargs="?", metavar="ROW", help="This is the name of the row.")
  add(
    "--workdir",
    default=_WORKDIR,
    help="This folder holds the runs and the figures of all rows. The default "
    f"is {_WORKDIR}.",
  )
  add("--seed", type=int, help="This is the seed of all runs.")
  add(
    "--budget",
    choices=("full", "tiny"),
    help="`full` trains as the configs say. `tiny` takes a few steps on "
    "stand-in data, to try the commands.",
  )
  add(
    "--inception",
    metavar="FILE",
    help="This file holds the weights of the Inception network of 2015.",
  )
  add(
    "--take",
    action="append",
    default=[],
    metavar="CONFIG=FOLDER",
    help="The run or the release in FOLDER takes the place of the run of "
    "CONFIG, which is not trained. It may be given several times.",
  )
  add(
    "--commands",
    action="store_true",
    help="The commands of the row are printed and not run.",
  )
  add(
    "--again",
    metavar="MANIFEST",
    help="The row of a manifest is made again with its options, and its "
    "figures are compared. Give an empty --workdir.",
  )
  return parser


def _choose(
  args: argparse.Namespace, overrides: list[str]
) -> tuple[str, rows.Options]:
  """Returns the row and the options of a command line.

  Raises:
    ConfigError: If an argument cannot be used.
  """
  name, old = args.row, {}
  if args.again:
    found = manifest.read(pathlib.Path(args.again))
    name, old = args.row or found["row"], found["options"]
  if name not in rows.ROWS:
    raise errors.ConfigError(
      f"{name!r} is no row: expected one of {', '.join(rows.ROWS)}."
    )
  for word in overrides:
    if not re.match(r"--config\.\w[\w.\[\]]*=", word):
      raise errors.ConfigError(
        f"{word!r}: expected an option of --help, or a field of the config "
        "such as --config.model.dtype=bfloat16."
      )
  pick = lambda new, key, default: new if new else old.get(key, default)
  return name, rows.Options(
    workdir=pathlib.Path(args.workdir),
    budget=pick(args.budget, "budget", "full"),
    seed=old.get("seed", 0) if args.seed is None else args.seed,
    inception=pick(args.inception, "inception", ""),
    taken=pick(_taken(name, args.take), "taken", {}),
    overrides=tuple(pick(overrides, "overrides", ())),
  )


def _taken(name: str, arguments: list[str]) -> dict[str, str]:
  """Returns the folders of `--take` by their configs."""
  taken, configs = {}, rows.ROWS[name].configs
  for argument in arguments:
    config, _, folder = argument.partition("=")
    if config not in configs or not folder:
      raise errors.ConfigError(
        f"--take={argument}: expected CONFIG=FOLDER, where CONFIG is a run of "
        f"the row {name}: {' or '.join(configs)}."
      )
    taken[config] = folder
  return taken


def _run(row: str, stage: stages.Stage) -> dict[str, Any]:
  """Runs the command of a stage and returns its record."""
  print(f"{row}, {stage.name}: {manifest.shown(stage)}", flush=True)
  folder = stage.outputs[0].parent
  was_resumed = folder.name == "checkpoints" and folder.exists()
  command, started = [sys.executable, *stage.command], time.time()
  if stage.prints:
    stage.prints.parent.mkdir(parents=True, exist_ok=True)
    with open(stage.prints, "w") as file:
      status = _wait(subprocess.Popen(command, stdout=file))
  else:
    status = _wait(subprocess.Popen(command))
  missing = [str(x) for x in stage.outputs if not x.exists()]
  if status or missing:
    what = f"status {status}" if status else f"no {missing[0]}"
    raise StageError(
      f"the stage {stage.name!r} has ended with {what}. Its message is above. "
      "Correct this and start the same command again: it goes on where it was "
      "stopped."
    )
  return manifest.of_stage(stage, started, time.time(), was_resumed)


def _wait(process: subprocess.Popen) -> int:
  """Waits for a stage, which ends in order when this command is stopped."""
  # A terminal sends Ctrl-C to both processes.
  handlers = {
    signal.SIGINT: lambda number, frame: None,
    signal.SIGTERM: lambda number, frame: process.send_signal(number),
  }
  old = {number: signal.signal(number, x) for number, x in handlers.items()}
  try:
    return process.wait()
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


def _compare(old: pathlib.Path, new: pathlib.Path) -> None:
  """Says whether two manifests of a row have the same figures.

  Raises:
    StageError: If they differ.
  """
  found = [manifest.read(x)["figures"] for x in (old, new)]
  lines = list(manifest.differences(*found))
  if lines:
    raise StageError(
      f"{len(lines)} figures differ from those of {old}; other machines and "
      f"versions round in another way. {lines[0]}."
    )
  print(f"All figures equal those of {old}.")


if __name__ == "__main__":
  # XLA logs warnings about the machine here.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  main()
