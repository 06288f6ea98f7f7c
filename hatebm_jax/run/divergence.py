"""Rules that say when training has diverged, and the record of rollbacks.

The loss says little, as it hovers around zero. More is said by the energy gap
between data and samples, by how often the chains' drift is clipped, by how far
z drifts and by how many pixels leave [-1, 1]. Each has a bound in
`config.divergence`. A rule is broken when the means of
`config.divergence.patience` logs in a row are beyond its bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from hatebm_jax.run import files, workdir

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
    step: Training step of the log that broke the rule.
    rule: Field of the rule in `config.divergence`, or `not_finite`.
    value: Value of the metric, or the text of what was found.
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
  """Training has diverged and shall go back.

  Attributes:
    divergence: What happened.
    good_step: Training step up to which all was well.
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
      settings: The group `config.divergence`.
    """
    self._settings = settings
    self._beyond = dict.fromkeys(_METRICS, 0)
    self.good_step = 0  # The last log within all bounds was at this step.

  @property
  def is_well(self) -> bool:
    """Returns whether the last log was within all bounds."""
    return not any(self._beyond.values())

  def update(
    self, step: int, metrics: Mapping[str, float]
  ) -> Divergence | None:
    """Takes the means of a log.

    Args:
      step: Training step of the log.
      metrics: Means by name. A rule whose metric is missing is never broken.

    Returns:
      A rule that this log breaks; None if there is none, or if an earlier log
      broke it already.
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
  """Returns a watch that has seen the earlier logs of a run.

  Args:
    settings: The group `config.divergence`.
    lines: Lines of metrics.jsonl, each with its `step`.
  """
  watch = Watch(settings)
  for line in lines:
    watch.update(line["step"], line)
  return watch


def rollbacks(path: epath.Path) -> list[dict]:
  """Returns the record of a workdir's rollbacks.

  Returns:
    One dict for each rollback, with `step`, `to`, `rule` and `value`.

  Raises:
    FileError: If the record is not JSON, or holds something else.
  """
  return files.read_record(
    path / FILE,
    "step, to, rule and value of each rollback",
    _is_rollback,
    "Restore it from a copy, or move it away; the run then forgets how often "
    "it went back.",
  )


def record(path: epath.Path, found: Divergence, to: int) -> None:
  """Adds a rollback to training step `to` to a workdir's record."""
  entries = [*rollbacks(path), {**found._asdict(), "to": to}]
  files.write_json(path / FILE, entries, indent=2)


def _is_rollback(entry: Any) -> bool:
  """Returns whether JSON is an entry that `record` writes."""
  return (
    isinstance(entry, dict)
    and workdir.is_step(entry.get("step"))
    and workdir.is_step(entry.get("to"))
    and isinstance(entry.get("rule"), str)
    and isinstance(entry.get("value"), float | int | str)
  )
