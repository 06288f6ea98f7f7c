"""Makes the paper's tables, with published rows beside ours.

Runs are given as LABEL=WORKDIR. A label of the published table puts the run
into that column. Any other label, such as digits, makes a column of its own. A
figure of ours always stands with the name of its measure and with a footnote
that gives its protocol.

LABEL=WORKDIR,OUT reads the figures that `--mode=evaluate --out=OUT` wrote. The
workdir may then be a release.
"""

import argparse
import importlib
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from experiments import departures, published
from hatebm_jax import errors, metrics
from hatebm_jax.run import changes, divergence, workdir


class Run(NamedTuple):
  """A run that was evaluated.

  Attributes:
    label: Label that the command line gave the run.
    path: Path of the workdir.
    out: Path of the folder that holds evaluation.json.
    config: Config that the evaluated weights were trained with.
    evaluation: Content of evaluation.json.
    num_rollbacks: Number of times that the run has gone back.
  """

  label: str
  path: pathlib.Path
  out: pathlib.Path
  config: ml_collections.ConfigDict
  evaluation: dict[str, Any]
  num_rollbacks: int

  @property
  def protocol(self) -> dict[str, Any]:
    """Returns what the figures of the run were made with."""
    return self.evaluation["protocol"]

  @property
  def is_ddls(self) -> bool:
    """Returns whether DDLS drew the samples of the run."""
    return self.protocol.get("ddls") is not None


class Row(NamedTuple):
  """A row of a table.

  Attributes:
    model: Name of the model.
    source: Where the figures come from, cited or measured.
    cells: Figures by the title of the column.
  """

  model: str
  source: str
  cells: dict[str, str]


def main(
  make_table: Callable[[list[Run]], str],
  description: str,
  arguments: Sequence[str] | None = None,
) -> None:
  """Reads the runs that the command line names and prints their table.

  Args:
    make_table: Function that returns the table of runs in Markdown.
    description: Docstring of the command; its first line is the help text.
    arguments: Arguments of the command; None takes those of the process.
  """
  parser = argparse.ArgumentParser(description=description.splitlines()[0])
  parser.add_argument("runs", nargs="*", metavar="LABEL=WORKDIR[,OUT]")
  try:
    print(make_table(read_runs(parser.parse_args(arguments).runs)))
  except errors.UserError as error:
    sys.exit(f"error: {error}")


def read_runs(arguments: Sequence[str]) -> list[Run]:
  """Reads LABEL=WORKDIR and LABEL=WORKDIR,OUT arguments.

  A label may stand for two runs, one of them of DDLS.

  Raises:
    ConfigError: If an argument has another form, or a label comes twice for
      runs of the same kind.
    WorkdirError: If a workdir holds no run, or the run was not evaluated.
  """
  runs = {}
  for argument in arguments:
    label, equals, path = argument.partition("=")
    if not (label and equals and path):
      raise errors.ConfigError(
        f"{argument!r}: expected LABEL=WORKDIR or LABEL=WORKDIR,OUT, such as "
        "digits=runs/digits."
      )
    # The name of a workdir may have a comma.
    folder, _, out = ("", "", "") if _exists(path) else path.rpartition(",")
    run = _read_run(label, folder or path, out or path)
    key = label, run.is_ddls
    if key in runs:
      raise errors.ConfigError(
        f"{argument!r}: expected one run for each label, but {label} already "
        f"stands for {runs[key].path}. Give one of them another label."
      )
    runs[key] = run
  return list(runs.values())


def _exists(path: str) -> bool:
  return pathlib.Path(path).exists()


def _read_run(label: str, folder: str, evaluated: str) -> Run:
  """Reads a run that was evaluated, with the config of its checkpoint."""
  path, out = pathlib.Path(folder), pathlib.Path(evaluated)
  config, evaluation = workdir.read_config(path), _read_evaluation(path, out)
  # A resumed run may have other values since.
  step = evaluation["protocol"]["checkpoint_step"]
  changes.undo(config, changes.read(path), step)
  rollbacks = divergence.rollbacks(path)
  return Run(label, path, out, config, evaluation, len(rollbacks))


def _read_evaluation(path: pathlib.Path, out: pathlib.Path) -> dict[str, Any]:
  """Reads the evaluation.json of a run."""
  overrides = () if out == path else (f"--out={out}",)
  evaluation = workdir.read_evaluation(out)
  command = evaluate_command(path, *overrides)
  if evaluation is None:
    raise workdir.WorkdirError(
      f"{out} holds no evaluation.json: expected a run that was evaluated. "
      f"Evaluate it with: {command}"
    )
  if "protocol" not in evaluation:
    raise workdir.WorkdirError(
      f"{out / workdir.EVALUATION} does not give its protocol, because an "
      f"older version wrote it. Evaluate the run again with: {command}"
    )
  record = evaluation["protocol"]
  if record["langevin"] is None and record.get("ddls") is None:
    raise workdir.WorkdirError(
      f"{out / workdir.EVALUATION}: expected figures of samples that the "
      "run's chains drew, found none. Evaluate a run that has a hat with: "
      f"{command}. An SN-GAN needs chains of DDLS: --config.ddls.num_steps=N."
    )
  return evaluation


def evaluate_command(path: pathlib.Path, *overrides: str) -> str:
  """Returns the command that evaluates a run."""
  # A workdir holds the values of its config but not the NAME of its file.
  command = "python -m hatebm_jax.main --mode=evaluate"
  words = [command, "--config=configs/NAME.py", f"--workdir={path}", *overrides]
  return " ".join(words)


def check(run: Run, expected: str, **fields: str) -> None:
  """Checks that a run belongs into a table.

  Args:
    run: The run.
    expected: Kind of run that belongs into the table, for the message.
    **fields: Values that the run's config must have, as `group__field=value`.

  Raises:
    ConfigError: If the config has another value.
  """
  for name, value in fields.items():
    name = name.replace("__", ".")
    found = run.config
    for part in name.split("."):
      found = found[part]
    if found != value:
      raise errors.ConfigError(
        f"{run.label}={run.path}: expected {expected} (config.{name}="
        f"{value!r}), found a run with {found!r}. Give another workdir."
      )


def frechet_table(
  table: published.Table,
  runs: list[Run],
  models: Callable[[Run], dict[str, str]],
  missing: Mapping[str, Callable[[str], str]] = types.MappingProxyType({}),
) -> str:
  """Returns a table of Frechet distances of runs beside published FIDs.

  Args:
    table: The published table.
    runs: Runs; the runs of one label share a column.
    models: Function that returns the names of a run's rows by the set of
      evaluation.json that they show.
    missing: Function for each model that is shown as not measured where no run
      has it. It returns the footnote of the column of a label.

  Raises:
    WorkdirError: If a run was evaluated without one of these sets.
  """
  titles, notes = {key: c.title for key, c in table.columns.items()}, []
  measured = {}
  for run in runs:
    title = titles.setdefault(run.label, run.label)
    notes.append(_note(run, table.columns.get(run.label)))
    for name, model in models(run).items():
      cell = f"{_distance(run, name)} [^{len(notes)}]"
      measured.setdefault(model, {})[title] = cell
  for model, note_of in missing.items():
    cells = measured.setdefault(model, {})
    for label, title in titles.items():
      if title not in cells:
        notes.append(note_of(label))
        cells[title] = f"not measured [^{len(notes)}]"
  rows = merge(cited(table, "FID"), measured_rows(measured))
  return markdown(list(titles.values()), rows, notes)


def cited(table: published.Table, measure: str) -> list[Row]:
  """Returns the published rows, with the measure before each figure."""
  return [
    Row(
      row.model,
      f"cited ({row.source})",
      {title: f"{measure} {figure}" for title, figure in row.figures.items()},
    )
    for row in table.rows
  ]


def measured_rows(measured: dict[str, dict[str, str]]) -> list[Row]:
  """Returns a row for each model that has cells."""
  return [
    Row(model, "measured here", cells)
    for model, cells in measured.items()
    if cells
  ]


def merge(cited_rows: list[Row], rows: list[Row]) -> list[Row]:
  """Puts our rows right below the published rows of the same model."""
  merged = []
  for row in cited_rows:
    merged += [row, *(own for own in rows if own.model == row.model)]
  return merged + [row for row in rows if row not in merged]


def markdown(titles: list[str], rows: list[Row], notes: list[str]) -> str:
  """Returns a table in Markdown with its footnotes below it."""
  lines = [["model", "source", *titles], ["---"] * (2 + len(titles))]
  for model, source, cells in rows:
    lines.append([model, source, *(cells.get(t, "-") for t in titles)])
  text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
  for number, note in enumerate(notes, 1):
    text += f"\n\n[^{number}]: {note}"
  return text


def _distance(run: Run, name: str) -> str:
  """Returns the Frechet distance of a set after the name of its network."""
  sets, network = run.evaluation["sets"], run.protocol["network"]
  if "frechet_distance" not in sets.get(name, {}):
    raise workdir.WorkdirError(
      f"{run.out / workdir.EVALUATION}: expected a Frechet distance of "
      f"{name!r}, found only the sets {sorted(sets)}. Evaluate the run again "
      f"with: {evaluate_command(run.path)}"
    )
  figure = metrics.all_figures()["frechet_distance"]
  found = sets[name][figure.name]
  text = f"{network} {figure.text(found['mean'], network)}"
  if found["std"] is not None:
    text += f" ± {figure.text(found['std'], network)}"
  return text


def _note(run: Run, column: published.Column | None) -> str:
  """Returns the footnote that compares a run with the paper's protocol."""
  protocol = run.protocol
  drawn = f"{protocol['num_images']:,} images"
  if protocol["repeats"] > 1:
    drawn += f", {protocol['repeats']} times with other keys (mean ± std)"
  if protocol["statistics"]:
    against = f"the moments in {protocol['statistics']['file']}"
  else:
    against = f"{protocol['num_reference']:,} of {protocol['data']} "
    against += protocol["split"]
  text = f"`{run.path}`: {drawn}, against {against}; {describe(run)}. "
  if "held_out" in run.evaluation["sets"]:
    held_out = run.evaluation["sets"]["held_out"]["num_images"]
    text += f"{held_out:,} held-out images: {_distance(run, 'held_out')}. "
  if column is None:
    return f"{text}Not an experiment of the paper: nothing to compare with."
  if run.is_ddls:
    text += "The paper does not give the steps and the step size of its DDLS. "
  else:
    source = run.config.generator.source
    text += departures.unknown_generator(source, column)
  found = _departures(run, column)
  if found:
    text += (
      "**Not comparable with the cited figures**: the paper's protocol asks "
      f"for {found}."
    )
  else:
    text += "As the paper's protocol asks, as far as it is known."
  return f"{text} {column.note}".rstrip()


def describe(run: Run) -> str:
  """Returns what a run's figures were made with: weights, chain, versions."""
  protocol, chain = run.protocol, run.protocol["langevin"]
  parts = [
    f"{protocol['weights']} weights of step {protocol['checkpoint_step']:,}",
    f"width {run.config.model.width}",
  ]
  if run.is_ddls:
    ddls = protocol["ddls"]
    size = f"step size {ddls['step_size']:g}"
    parts.append(f"{ddls['num_steps']} steps of DDLS of {size}")
  else:
    at = f"at temperature {chain['temperature']:g}"
    parts.append(f"{chain['num_steps']} Langevin steps {at}")
  if run.config.objective == "joint":
    parts.append(f"generator of {run.config.generator.source or 'its own'}")
  parts += [
    f"seed {protocol['seed']}",
    f"hatebm_jax {protocol['hatebm_jax']}, jax {protocol['jax']}, "
    f"{protocol['device']}",
  ]
  return "; ".join(parts)


def paper_config(name: str) -> ml_collections.ConfigDict:
  """Returns the published config of this name."""
  module = importlib.import_module(f"hatebm_jax.configs.{name}")
  return module.get_config()


def _departures(run: Run, column: published.Column) -> str:
  """Returns where a run departs from the paper's protocol; '' if nowhere."""
  paper, protocol = paper_config(column.config), run.protocol
  if run.is_ddls:
    paper = paper_config(column.sngan)
    return departures.text(
      departures.of_figures(protocol, paper, column)
      | {"SN-GAN": (column.generator, f"that of {run.path}")}
      | departures.of_training(run.config, paper)
      | departures.of_history(protocol, run.num_rollbacks)
    )
  return departures.text(
    departures.of_figures(protocol, paper, column)
    | departures.of_generator(run.config.generator.source, column)
    | departures.of_training(run.config, paper)
    | departures.of_chains(protocol, paper)
    | departures.of_history(protocol, run.num_rollbacks)
  )
