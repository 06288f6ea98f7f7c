"""What a row needs, checked before anything is trained."""

import ml_collections

from experiments import published
from experiments.paper import rows
from hatebm_jax import config_flag, data, errors, evaluation
from hatebm_jax.metrics import inception
from hatebm_jax.run import files, workdir


def needs(name: str) -> str:
  """Returns what a row needs, as text.

  Args:
    name: Name of the row.
  """
  row = rows.ROWS[name]
  if row.is_twin:
    return "nothing: scikit-learn has the images"
  config = config_flag.load([f"--config={row.config}"])
  if row.table == "ood":
    return ", ".join((config.data.source, *published.OOD.columns))
  return f"{config.data.source} and --inception=FILE"


def check_weights(name: str, options: rows.Options) -> None:
  """Checks that what the command line names is there.

  Args:
    name: Name of the row.
    options: What the user chose.

  Raises:
    ConfigError: If the row needs the weights of the Inception network, and they
      are not there.
    WorkdirError: If a run or a release that was taken is not there.
  """
  row = rows.ROWS[name]
  for folder in options.taken.values():
    workdir.read_config(files.as_path(folder))
  if row.is_twin or row.table == "ood" or options.is_tiny:
    return
  if not options.inception:
    raise errors.ConfigError(
      f"The row {name} needs the weights of the Inception network of 2015. "
      f"Name their file with --inception=FILE. {inception.WHERE}"
    )
  inception.load(options.inception)


def check(plan: rows.Plan) -> None:
  """Checks that the stages will find their images and weights.

  Args:
    plan: Stages of a row. Those that prepare images are done.

  Raises:
    UserError: If images or weights are missing or cannot be read.
  """
  for stage in plan.train.values():
    data.open_native(_config(stage).data, "train")
  config, folder = list(plan.runs.items())[-1]
  evaluate = rows.fields(plan.measure[0].command)
  if config in plan.train:
    trained = rows.fields(plan.train[config].command)
  else:
    trained = [f"--config={folder}"]
  given = config_flag.load([*trained, *evaluate])
  evaluation.check(given, has_hat=True)


def _config(stage: rows.Stage) -> ml_collections.ConfigDict:
  return config_flag.load(rows.fields(stage.command))
