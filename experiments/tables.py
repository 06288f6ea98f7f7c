"""The paper's tables, published rows beside ours: what they share.

Runs are given as LABEL=WORKDIR. A label that the published table has puts the
run into that column; any other label (digits) makes a column of its own. A
figure of ours never stands without the name of its measure and a footnote with
its protocol.
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections

from experiments import published
from hatebm_jax import errors
from hatebm_jax.run import workdir

# Decimals that the spread over sets of a thousand images and more leaves.
_DECIMALS = {"FID": 2, "FD-digits": 1, "FD-ResNet10": 3}


class Run(NamedTuple):
  """A run that was evaluated.

  Attributes:
    label: that the command line gave it.
    path: its workdir.
    config: that it was started with.
    evaluation: what evaluation.json holds.
  """

  label: str
  path: pathlib.Path
  config: ml_collections.ConfigDict
  evaluation: dict[str, Any]

  @property
  def protocol(self) -> dict[str, Any]:
    """What its figures were made with."""
    return self.evaluation["protocol"]


class Row(NamedTuple):
  """A row of a table: whose figures, from where, by the column's title."""

  model: str
  source: str
  cells: dict[str, str]


def main(
  make_table: Callable[[list[Run]], str],
  description: str,
  arguments: Sequence[str] | None = None,
) -> None:
  """Reads the runs that the command line names and prints their table."""
  parser = argparse.ArgumentParser(description=description.splitlines()[0])
  parser.add_argument("runs", nargs="*", metavar="LABEL=WORKDIR")
  try:
    print(make_table(read_runs(parser.parse_args(arguments).runs)))
  except (errors.ConfigError, workdir.WorkdirError) as error:
    sys.exit(f"error: {error}")


def read_runs(arguments: Sequence[str]) -> list[Run]:
  """Reads LABEL=WORKDIR arguments.

  Raises:
    ConfigError: if an argument is something else, or a label comes twice.
    WorkdirError: if a workdir holds no run, or none that was evaluated.
  """
  runs = {}
  for argument in arguments:
    label, equals, path = argument.partition("=")
    if not (label and equals and path):
      raise errors.ConfigError(
        f"{argument!r}: expected LABEL=WORKDIR, such as digits=runs/digits."
      )
    if label in runs:
      raise errors.ConfigError(
        f"{argument!r}: expected one run a label, found {runs[label].path} "
        f"before. Call one of them something else than {label}."
      )
    path = pathlib.Path(path)
    config = workdir.read_config(path)
    runs[label] = Run(label, path, config, _read_evaluation(path))
  return list(runs.values())


def _read_evaluation(path: pathlib.Path) -> dict[str, Any]:
  """Reads a workdir's evaluation.json."""
  evaluation, command = workdir.read_evaluation(path), evaluate_command(path)
  if evaluation is None:
    raise workdir.WorkdirError(
      f"{path} holds no evaluation.json: expected a run that was evaluated. "
      f"Evaluate it with: {command}"
    )
  if "protocol" not in evaluation:
    raise workdir.WorkdirError(
      f"{path / workdir.EVALUATION} says nothing about its protocol: an older "
      f"version wrote it. Evaluate the run again with: {command}"
    )
  return evaluation


def evaluate_command(path: pathlib.Path, *overrides: str) -> str:
  """Returns the command that evaluates a run."""
  # NAME: a workdir knows its config's values, not its file.
  command = "python -m hatebm_jax.main --mode=evaluate"
  words = [command, "--config=configs/NAME.py", f"--workdir={path}", *overrides]
  return " ".join(words)


def check(run: Run, expected: str, **fields: str) -> None:
  """Checks that a run belongs into a table.

  Args:
    run: any.
    expected: what the table is of, for people.
    **fields: `group__field=value` of the run's config.

  Raises:
    ConfigError: if its config differs.
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
  table: published.Table, runs: list[Run], models: dict[str, str]
) -> str:
  """Lays Frechet distances of runs out beside published FIDs.

  Args:
    table: the published one.
    runs: a column each.
    models: the row's name, by the set of evaluation.json that it shows.

  Raises:
    WorkdirError: if a run was evaluated without one of these sets.
  """
  titles, notes = [c.title for c in table.columns.values()], []
  measured = {model: {} for model in models.values()}
  for run in runs:
    column = table.columns.get(run.label)
    title = column.title if column else run.label
    titles += [] if column else [title]
    notes.append(_note(run, column))
    for name, model in models.items():
      measured[model][title] = f"{_distance(run, name)} [^{len(notes)}]"
  rows = merge(cited(table, "FID"), measured_rows(measured))
  return markdown(titles, rows, notes)


def cited(table: published.Table, measure: str) -> list[Row]:
  """Returns the published rows, the measure before each figure."""
  return [
    Row(
      row.model,
      f"cited ({row.source})",
      {title: f"{measure} {figure}" for title, figure in row.figures.items()},
    )
    for row in table.rows
  ]


def measured_rows(measured: dict[str, dict[str, str]]) -> list[Row]:
  """Returns rows of cells by model; none of a model without cells."""
  return [
    Row(model, "measured here", cells)
    for model, cells in measured.items()
    if cells
  ]


def merge(cited_rows: list[Row], rows: list[Row]) -> list[Row]:
  """Puts our rows right below the published ones of the same model."""
  merged = []
  for row in cited_rows:
    merged += [row, *(own for own in rows if own.model == row.model)]
  return merged + [row for row in rows if row not in merged]


def markdown(titles: list[str], rows: list[Row], notes: list[str]) -> str:
  """Returns a table in Markdown, its footnotes below it."""
  lines = [["model", "source", *titles], ["---"] * (2 + len(titles))]
  for model, source, cells in rows:
    lines.append([model, source, *(cells.get(t, "-") for t in titles)])
  text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
  for number, note in enumerate(notes, 1):
    text += f"\n\n[^{number}]: {note}"
  return text


def _distance(run: Run, name: str) -> str:
  """Returns the Frechet distance of a set, its space's name before it."""
  sets, network = run.evaluation["sets"], run.protocol["network"]
  if "frechet_distance" not in sets.get(name, {}):
    raise workdir.WorkdirError(
      f"{run.path / workdir.EVALUATION} holds no Frechet distance of {name!r}: "
      f"expected it beside those of {sorted(sets)}. Evaluate the run again "
      f"with: {evaluate_command(run.path)}"
    )
  figure, decimals = sets[name]["frechet_distance"], _DECIMALS[network]
  text = f"{network} {figure['mean']:.{decimals}f}"
  if figure["std"] is not None:
    text += f" ± {figure['std']:.{decimals}f}"
  return text


def _note(run: Run, column: published.Column | None) -> str:
  """Returns the footnote of a run: its protocol, and the paper's beside it."""
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
  departures = _departures(run, column)
  if not departures:
    return f"{text}As the paper's protocol asks, as far as it is known."
  return (
    f"{text}**Not comparable with the cited figures**: the paper's protocol "
    f"asks for {departures}."
  )


def describe(run: Run) -> str:
  """Says what a run's figures were made with: weights, chain, versions."""
  protocol, chain = run.protocol, run.protocol["langevin"]
  parts = [
    f"{protocol['weights']} weights of step {protocol['checkpoint_step']:,}",
    f"width {run.config.model.width}",
    f"{chain['num_steps']} Langevin steps at temperature "
    f"{chain['temperature']:g}",
  ]
  if run.config.objective == "joint":
    parts.append(f"generator of {run.config.generator.source or 'its own'}")
  parts += [
    f"seed {protocol['seed']}",
    f"hatebm_jax {protocol['hatebm_jax']}, jax {protocol['jax']}, "
    f"{protocol['device']}",
  ]
  return "; ".join(parts)


def _departures(run: Run, column: published.Column) -> str:
  """Names where a run departs from the paper's protocol, or ''."""
  paper = importlib.import_module(
    f"hatebm_jax.configs.{column.config}"
  ).get_config()
  protocol, chain = run.protocol, run.protocol["langevin"]
  pairs = {
    "images": (published.NUM_IMAGES, protocol["num_images"]),
    "reference images": (published.NUM_IMAGES, protocol["num_reference"]),
    "measure": ("FID", protocol["network"]),
    "data": (paper.data.source, protocol["data"]),
    "split": ("train", protocol["split"]),
    "weights": ("raw", protocol["weights"]),
    "training steps": (paper.train.num_steps, protocol["checkpoint_step"]),
    "batch size": (paper.train.batch_size, run.config.train.batch_size),
    "width": (paper.model.width, run.config.model.width),
    "Langevin steps of training": (
      paper.langevin.num_steps,
      run.config.langevin.num_steps,
    ),
    "Langevin steps of samples": (
      paper.evaluate.num_steps,
      chain["num_steps"],
    ),
    "temperature": (paper.langevin.temperature, chain["temperature"]),
  }
  return ", ".join(
    f"{what} {_text(asked)} (found {_text(found)})"
    for what, (asked, found) in pairs.items()
    if asked != found
  )


def _text(value: Any) -> str:
  """Returns a setting for people: 49,920; 0.001; none."""
  if value is None:
    return "none"
  return f"{value:,}" if isinstance(value, int) else str(value)
