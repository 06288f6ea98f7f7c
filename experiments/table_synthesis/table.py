"""The paper's table of synthesis, published rows beside ours.

python -m experiments.table_synthesis.table cifar10=WORKDIR celeba64=WORKDIR \
  imagenet128=WORKDIR imagenet128_large=WORKDIR

The workdirs hold synthesis runs (configs/LABEL.py) that were evaluated. Any of
them may be left out. Any other label, as in digits=runs/digits, makes a column
of its own.
"""

from experiments import published, tables

_MODELS = {"hat": "Hat EBM", "generator": "Hat EBM, its generator alone"}


def make(runs: list[tables.Run]) -> str:
  """Returns the table in Markdown."""
  for run in runs:
    tables.check(run, "a synthesis run", objective="synthesis")
  return tables.frechet_table(published.SYNTHESIS, runs, lambda run: _MODELS)


if __name__ == "__main__":
  tables.main(make, __doc__)
