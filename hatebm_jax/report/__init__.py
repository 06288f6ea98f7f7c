"""One HTML page about a run: `python -m hatebm_jax.report DIR`.

The page shows settings, curves, grids over time, the newest samples and the
figures of evaluation.json. It needs no other file beside it. The run may still
be training.
"""

import contextlib
from collections.abc import Iterator

from etils import epath

from hatebm_jax.report import evaluated, page, samples, training
from hatebm_jax.run import changes, divergence, files, weights, workdir

__all__ = ["make", "write"]


def make(path: epath.PathLike) -> str:
  """Returns the page about the run in a workdir, or about a release.

  Args:
    path: Path of the workdir, or of a release.

  Raises:
    FileError: If a file of the workdir is not JSON.
    ReleaseError: If a release is damaged.
    WorkdirError: If the workdir holds no run, or one of its files is broken.
  """
  path = files.as_path(path)
  config = workdir.read_config(path).to_dict()
  lines = workdir.read_metrics(path)
  rollbacks = divergence.rollbacks(path)
  result = workdir.read_evaluation(path)
  with _reading(path / workdir.EVALUATION):
    evaluation = evaluated.sections(path, result)
  sections = {
    "Settings": training.settings(config),
    "Changes of the config": training.changes(changes.read(path)),
    "Curves": training.metrics(path, lines, rollbacks),
    "Rollbacks": training.rollbacks(rollbacks),
    "Grids over time": training.grids(path / "images"),
    "Samples": samples.section(path),
    **evaluation,
  }
  introduction = training.introduction(path, config, lines)
  if weights.is_release(path):
    (step,) = weights.opened(path).steps()
    introduction = training.of_release(path, config, step)
    sections |= {"Curves": "", "Samples": samples.of_release(path)}
  heading = f"{config['objective']} on {config['data']['source']}"
  return page.document(
    title=f"{heading}: {path.name}",
    heading=heading,
    introduction=introduction,
    sections={name: body for name, body in sections.items() if body},
  )


def write(path: epath.PathLike) -> epath.Path:
  """Writes the page to report.html in the workdir.

  Args:
    path: Path of the workdir, or of a release.

  Returns:
    The path of the page.

  Raises:
    FileError: If a file of the workdir is not JSON.
    WorkdirError: If the workdir holds no run, or one of its files is broken.
  """
  file = files.as_path(path) / "report.html"
  files.write_atomic(file, make(path))
  return file


@contextlib.contextmanager
def _reading(file: epath.Path) -> Iterator[None]:
  """Reports a file with an unexpected structure in one message."""
  try:
    yield
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    raise workdir.WorkdirError(
      f"{file} does not hold what a run writes there "
      f"({type(error).__name__}: {error}). Restore it from a copy, or write it "
      "anew."
    ) from error
