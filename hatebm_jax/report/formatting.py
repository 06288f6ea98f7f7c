"""Numbers and commands as a report shows them."""

import math
import shlex
from typing import Any

from etils import epath


def number(value: float | str | None) -> str:
  """Shows a number or the text that stands in its place; '-' for None."""
  if value is None or isinstance(value, str):
    return value or "-"
  return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def spread(figure: dict[str, Any] | None, factor: int = 1) -> str:
  """Shows a mean to the second digit of its standard deviation.

  Args:
    figure: Entry of evaluation.json with `mean` and `std`, or None.
    factor: Factor that both are multiplied by, 100 for percent.
  """
  if figure is None or figure["mean"] is None:
    return "-"
  mean, std = factor * figure["mean"], figure["std"]
  if std is None:
    return f"{mean:#.4g}".rstrip(".")
  std *= factor
  if not 0 < std < math.inf:
    return f"{mean:.4g} ± {std:.2g}"
  decimals = max(0, 1 - math.floor(math.log10(std)))
  return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def interval(rate: dict[str, float]) -> str:
  """Shows a rate and its interval."""
  return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"


def command(path: epath.Path, mode: str) -> str:
  """Returns the command that makes what a workdir lacks."""
  return (
    "python -m hatebm_jax.main --config=configs/NAME.py "
    f"--workdir={shlex.quote(str(path))} --mode={mode}"
  )
