"""The paper's table of refinement, published rows beside ours.

python -m experiments.table_refinement.table cifar10=WORKDIR celeba64=WORKDIR

The workdirs hold refinements (configs/cifar10_refine.py, celeba64_refine.py)
that were evaluated. Any of them may be left out. Any other label, as in
digits=runs/digits_refine, makes a column of its own.
"""

from experiments import published, tables

_MODELS = {"generator": "SN-GAN (start)", "hat": "Hat EBM"}


def make(runs: list[tables.Run]) -> str:
  """Returns the table in Markdown."""
  for run in runs:
    fields = {"objective": "joint", "generator__kind": "generator"}
    tables.check(run, "a refinement", **fields)
  return tables.frechet_table(published.REFINEMENT, runs, _MODELS)


if __name__ == "__main__":
  tables.main(make, __doc__)
