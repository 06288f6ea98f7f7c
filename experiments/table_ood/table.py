"""The paper's table of out-of-distribution detection, beside ours.

python -m experiments.table_ood.table cifar10=WORKDIR

The workdir holds a synthesis run that was evaluated with config.ood.sets. Every
figure of ours is an AUROC with its 95 % bootstrap interval. The other scores of
the hat and those that need no model stand below the energy. A set that the
paper does not have makes a column of its own, and so do the sets of
digits=runs/digits.
"""

from experiments import departures, published, tables
from hatebm_jax.metrics import ood
from hatebm_jax.run import workdir

_AUROC = ood.FIGURES[0]


def make(runs: list[tables.Run]) -> str:
  """Returns the table in Markdown."""
  titles = [column.title for column in published.OOD.columns.values()]
  rows, notes = tables.cited(published.OOD, _AUROC.title), [published.OOD_NOTE]
  rows = [row._replace(source=f"{row.source} [^1]") for row in rows]
  for run in runs:
    sets = _sets(run)
    titles += [title for title in sets if title not in titles]
    notes.append(_note(run, sets))
    rows += tables.measured_rows(_cells(run.label, sets, len(notes)))
  return tables.markdown(titles, rows, notes)


def _sets(run: tables.Run) -> dict[str, dict]:
  """Returns a run's out-of-distribution sets by their columns' titles."""
  if not run.evaluation.get("ood", {}).get("sets"):
    override = f"'--config.ood.sets={tuple(published.OOD.columns)}'"
    raise workdir.WorkdirError(
      f"{run.out / workdir.EVALUATION}: expected the AUROC of at least one "
      "out-of-distribution set, found none. Evaluate the run again with: "
      f"{tables.evaluate_command(run.path, override)}"
    )
  result = {}
  for name, found in run.evaluation["ood"]["sets"].items():
    # A name is the source and its split, such as "tfds:svhn_cropped test".
    column = published.OOD.columns.get(name.rpartition(" ")[0])
    result[column.title if column else name] = found
  return result


def _cells(
  label: str, sets: dict[str, dict], note: int
) -> dict[str, dict[str, str]]:
  """Returns AUROCs by the score and the title of the column."""
  result = {}
  for title, found in sets.items():
    for name, measures in found["scores"].items():
      model = f"{label}: {name.replace('_', ' ')}"
      value, low, high = (
        _AUROC.text(measures[_AUROC.name][part])
        for part in ("value", "low", "high")
      )
      result.setdefault(model, {})[title] = (
        f"{_AUROC.title} {value} [{low}, {high}] [^{note}]"
      )
  return result


def _note(run: tables.Run, sets: dict[str, dict]) -> str:
  """Returns the footnote of a run."""
  inside = run.evaluation["ood"]["in_distribution"]
  sizes = "; ".join(
    f"{title}: {found['num_in']:,} in, {found['num_out']:,} out, both at "
    f"{found['resized_to']} pixels"
    for title, found in sets.items()
  )
  text = (
    f"`{run.path}`, in distribution: {inside}; {tables.describe(run)}. "
    f"{sizes}{_encoding(run)}. In brackets 95 % bootstrap intervals. "
    "Out-of-distribution images have the higher score of the hat; "
    f"{', '.join(ood.BASELINES).replace('_', ' ')} need no model and have the "
    "better of their two directions."
  )
  if inside.rpartition(" ")[0] == published.OOD_IN_DISTRIBUTION:
    return f"{text}{_departures(run)} {published.OOD_NOTE}"
  return f"{text} Not an experiment of the paper: nothing to compare with."


def _encoding(run: tables.Run) -> str:
  """Says how both sides were encoded; '' if they were left as they are."""
  quality = run.evaluation["ood"].get("jpeg_quality")
  return f", both as JPEGs of quality {quality}" if quality else ""


def _departures(run: tables.Run) -> str:
  """Returns a sentence about the hat's training; '' if it is the paper's."""
  paper = tables.paper_config(next(iter(published.OOD.columns.values())).config)
  found = departures.of_weights(run.protocol, paper)
  found |= departures.of_training(run.config, paper)
  found |= departures.of_history(run.protocol, run.num_rollbacks)
  if not found:
    return ""
  return (
    " **Not comparable with the cited figures**: the paper's training asks for "
    f"{departures.text(found)}."
  )


if __name__ == "__main__":
  tables.main(make, __doc__)
