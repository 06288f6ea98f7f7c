"""The paper's figure of the retrofit, beside ours.

python -m experiments.table_retrofit.table cifar10=WORKDIR

The workdir holds a retrofit (configs/cifar10_retrofit.py) that was evaluated.
Any other label, as in digits=runs/digits_retrofit, makes a column of its own.
"""

from experiments import published, tables

_MODELS = {"generator": "decoder alone, z ~ N(0, I)", "hat": "Hat EBM"}


def make(runs: list[tables.Run]) -> str:
  """Returns the table in Markdown."""
  for run in runs:
    fields = {"objective": "joint", "generator__kind": "decoder"}
    tables.check(run, "a retrofit", **fields)
  return tables.frechet_table(published.RETROFIT, runs, lambda run: _MODELS)


if __name__ == "__main__":
  tables.main(make, __doc__)
