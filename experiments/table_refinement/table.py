"""The paper's table of refinement, published rows beside ours.

python -m experiments.table_refinement.table cifar10=WORKDIR celeba64=WORKDIR

The workdirs hold refinements (configs/cifar10_refine.py, celeba64_refine.py)
that were evaluated. Any of them may be left out. Any other label, as in
digits=runs/digits_refine, makes a column of its own. A label may stand for an
SN-GAN too, as in digits=runs/digits_sngan, which was evaluated with DDLS.
"""

from experiments import published, tables

_HAT = {"generator": "SN-GAN (start)", "hat": "Hat EBM"}


def make(runs: list[tables.Run]) -> str:
  """Returns the table in Markdown."""
  refined = {run.label for run in runs if not run.is_ddls}
  for run in runs:
    if not run.is_ddls:
      fields = {"objective": "joint", "generator__kind": "generator"}
      tables.check(run, "a refinement", **fields)

  def models(run):
    if not run.is_ddls:
      return _HAT
    # A hat's run has measured the images of the same SN-GAN.
    start = {} if run.label in refined else {"generator": "SN-GAN (start)"}
    return start | {"ddls": "DDLS"}

  missing = {"DDLS": _ddls_commands}
  return tables.frechet_table(published.REFINEMENT, runs, models, missing)


def _ddls_commands(label: str) -> str:
  """Returns how DDLS is measured for a column."""
  path, fields, metrics = f"runs/{label}_sngan", "", ""
  if label in published.REFINEMENT.columns:
    metrics = " --config.metrics.inception=inception.pth"
    fields = f" --config.metrics.protocol=paper{metrics}"
  return (
    f"Train the SN-GAN: `python -m hatebm_jax.main --config=configs/{label}"
    f"_sngan.py --workdir={path}`. Choose the steps N and the step size EPS: "
    f"`python -m experiments.ddls_search --workdir={path} --out={path}/ddls."
    f"json{metrics}`. Measure: `python -m hatebm_jax.main --workdir={path} "
    f"--mode=evaluate{fields} --config.ddls.num_steps=N --config.ddls."
    f"step_size=EPS`. Then name `{label}={path}` for this table too."
  )


if __name__ == "__main__":
  tables.main(make, __doc__)
