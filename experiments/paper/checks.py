"""What a row needs, checked before anything is trained."""

from experiments import published
from experiments.paper import rows, stages
from hatebm_jax import config_flag, data, errors, evaluation
from hatebm_jax.metrics import inception
from hatebm_jax.run import files, workdir


def needs(row: rows.Row) -> str:
  """Returns what a row needs, as text."""
  if row.is_twin:
    return "nothing: scikit-learn has the images"
  config = config_flag.load([f"--config={row.config}"])
  if row.table == "ood":
    return ", ".join((config.data.source, *published.OOD.columns))
  return f"{config.data.source} and --inception=FILE"


def check_weights(row: rows.Row, options: rows.Options) -> None:
  """Checks that what the command line names is there.

  Args:
    row: The row.
    options: What the user chose.

  Raises:
    ConfigError: If the row needs the weights of the Inception network, and they
      are not there.
    WorkdirError: If a run or a release that was taken is not there.
  """
  for folder in options.taken.values():
    workdir.read_config(files.as_path(folder))
  if row.is_twin or row.table == "ood" or options.is_tiny:
    return
  if not options.inception:
    raise errors.ConfigError(
      f"The row {row.name} needs the weights of the Inception network of 2015. "
      f"Name their file with --inception=FILE. {inception.WHERE}"
    )
  inception.load(options.inception)


def check(row: rows.Row, options: rows.Options, plan: stages.Plan) -> None:
  """Checks that the stages will find their images and weights.

  Args:
    row: The row.
    options: What the user chose.
    plan: Stages of the row. Those that prepare images are done.

  Raises:
    UserError: If images or weights are missing or cannot be read.
  """
  for stage in plan.train.values():
    data.open_native(config_flag.load(stage.fields).data, "train")
  if row.config in plan.train:
    start = plan.train[row.config].fields
  else:
    start = [f"--config={stages.run_folder(row.config, options)}"]
  config = config_flag.load([*start, *plan.measure["evaluate"].fields])
  evaluation.check(config, has_hat=True)
