"""When training has diverged, and what a run remembers of going back.

The loss says little: it hovers around zero. What says more is the energy gap
between data and samples, how often the chains' drift is clipped, how far z
drifts and how many pixels leave [-1, 1]. Each has a bound in
`config.divergence`; a rule is broken when the means of so many logs in a row
are beyond it.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections

from hatebm_jax.run import workdir

FILE = "rollbacks.json"

# The metric that each rule bounds, in absolute value.
_METRICS = {
  "max_energy_gap": "energy_gap",
  "max_clip_rate": "clip_rate_y",
  "max_drift_z": "drift_norm_z",
  "max_saturation": "saturation",
}


class Divergence(NamedTuple):
  """A broken rule.

  Attributes:
    step: training step of the log that broke it.
    rule: its field in `config.divergence`, or `not_finite`.
    value: of the metric, or what was found.
  """

  step: int
  rule: str
  value: float | str

  def __str__(self) -> str:
    if self.rule == "not_finite":
      return f"training step {self.step}: {self.value}"
    return (
      f"training step {self.step}: {_METRICS[self.rule]} is {self.value:.3g}, "
      f"beyond config.divergence.{self.rule}"
    )


class DivergedError(FloatingPointError):
  """Training has diverged and is to go back.

  Attributes:
    divergence: what happened.
    good_step: training step up to which all was well.
  """

  def __init__(self, divergence: Divergence, good_step: int):
    super().__init__(str(divergence))
    self.divergence = divergence
    self.good_step = good_step


class Watch:
  """Follows a run's logs and says when a rule is broken."""

  def __init__(self, settings: ml_collections.ConfigDict):
    """Starts to watch.

    Args:
      settings: `config.divergence`.
    """
    self._settings = settings
    self._beyond = dict.fromkeys(_METRICS, 0)
    self.good_step = 0  # of the last log that was within all bounds

  @property
  def is_well(self) -> bool:
    """Whether the last log was within all bounds."""
    return not any(self._beyond.values())

  def update(
    self, step: int, metrics: Mapping[str, float]
  ) -> Divergence | None:
    """Takes the means of a log; returns a rule that it breaks, once.

    Args:
      step: training step of the log.
      metrics: means; a rule whose metric is not among them is never broken.
    """
    broken = None
    for rule, name in _METRICS.items():
      beyond = abs(metrics.get(name, 0.0)) > self._settings[rule]
      self._beyond[rule] = self._beyond[rule] + 1 if beyond else 0
      if self._beyond[rule] == self._settings.patience:
        broken = broken or Divergence(step, rule, metrics[name])
    if self.is_well:
      self.good_step = step
    return broken


def follow(
  settings: ml_collections.ConfigDict, lines: Iterable[Mapping[str, float]]
) -> Watch:
  """Returns a watch that has seen a run's earlier logs, with their `step`."""
  watch = Watch(settings)
  for line in lines:
    watch.update(line["step"], line)
  return watch


def rollbacks(path: pathlib.Path) -> list[dict]:
  """Returns a workdir's record: `step`, `to`, `rule`, `value` of each.

  Raises:
    WorkdirError: if the record cannot be read.
  """
  file = path / FILE
  if not file.exists():
    return []
  advice = (
    "Restore it from a copy, or move it away: the run then forgets how often "
    "it went back."
  )
  entries = workdir.read_json(file, advice, list)
  if not all(map(_is_rollback, entries)):
    raise workdir.WorkdirError(
      f"{file}: expected step, to, rule and value of each rollback, found "
      f"something else. {advice}"
    )
  return entries


def record(path: pathlib.Path, found: Divergence, to: int) -> None:
  """Adds a rollback to training step `to` to a workdir's record."""
  entries = [*rollbacks(path), {**found._asdict(), "to": to}]
  workdir.write_atomic(path / FILE, json.dumps(entries, indent=2) + "\n")


def _is_rollback(entry: Any) -> bool:
  """Whether JSON is what `record` writes."""
  return (
    isinstance(entry, dict)
    and workdir.is_step(entry.get("step"))
    and workdir.is_step(entry.get("to"))
    and isinstance(entry.get("rule"), str)
    and isinstance(entry.get("value"), float | int | str)
  )
