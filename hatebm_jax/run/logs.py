"""Logs of a training run: progress lines, metrics.jsonl, TensorBoard."""

import json
import time
from typing import Any

import jax
import numpy as np
from etils import epath

from hatebm_jax import images as images_lib
from hatebm_jax.run import files
from hatebm_jax.run import lines as lines_lib
from hatebm_jax.run import workdir as workdir_lib

# These figures of a line depend on the machine: equal runs differ in them.
TIMES = ("steps_per_second", "input_wait_fraction", "save_wait_fraction")


class NonFiniteError(FloatingPointError):
  """A metric is NaN or infinite.

  Attributes:
    step: First training step at which a metric is not finite.
  """

  def __init__(self, message: str, step: int):
    super().__init__(message)
    self.step = step


class RunLog:
  """Collects the metrics of training steps and writes their means.

  Values stay on the device until `write`, so no step waits for its metrics.
  """

  def __init__(
    self,
    workdir: epath.Path,
    first_step: int,
    active: bool,
    unwritten: dict[str, Any] | None = None,
  ):
    """Opens the log.

    Args:
      workdir: Path of the workdir.
      first_step: Number of training steps already taken. Later lines are
        dropped: their run was killed after its last checkpoint.
      active: Whether this process writes; one of several does.
      unwritten: What `unwritten` returned in the run that took these steps.

    Raises:
      WorkdirError: If `unwritten` is not what the method of that name returns.
    """
    self._workdir = workdir
    self._active = active
    self._pending: list[tuple[np.ndarray, dict[str, jax.Array]]] = []
    self._noted: dict[str, float] = {}
    if unwritten:
      self._take_up(unwritten)
    self._step = first_step
    self._wait = self._save_wait = 0.0
    self._time = time.perf_counter()
    if not active:
      return
    _drop_later_lines(workdir, first_step)
    self._lines = lines_lib.Lines(workdir / workdir_lib.METRICS)
    # Only training writes this file, and only after its first messages.
    from hatebm_jax.run import event_file

    self._tensorboard = event_file.EventFile(workdir)

  def add(
    self, steps: np.ndarray, metrics: dict[str, jax.Array], wait: float
  ) -> None:
    """Notes training steps.

    Args:
      steps: Numbers of the training steps, `[n]`.
      metrics: Metrics of each step, `[n]`.
      wait: Seconds that the steps waited for their batches.
    """
    if self._pending and self._pending[0][1].keys() != metrics.keys():
      # An earlier version wrote these, with other metrics.
      self._pending = []
    self._pending.append((steps, metrics))
    self._wait += wait

  def add_saving(self, seconds: float) -> None:
    """Notes seconds in which training waited for a checkpoint."""
    self._save_wait += seconds

  def note(self, metrics: dict[str, float]) -> None:
    """Keeps what is measured now and then for the next line written."""
    self._noted |= metrics

  def _fetch(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the steps since the last `write` and their metrics."""
    pending = jax.device_get(self._pending)
    steps = np.concatenate([steps for steps, _ in pending])
    metrics = {
      name: np.concatenate([values[name] for _, values in pending])
      for name in pending[0][1]
    }
    self._pending = [(steps, metrics)]  # Nothing is fetched twice.
    return steps, metrics

  def unwritten(self) -> dict[str, Any]:
    """Returns, as JSON, what the log of a resumed run starts with."""
    if not self._pending:
      return {}
    steps, metrics = self._fetch()
    columns = {"step": steps, **metrics}
    rows = zip(*(x.tolist() for x in columns.values()), strict=True)
    lines = [dict(zip(columns, row, strict=True)) for row in rows]
    return {"lines": lines, "noted": self._noted}

  def _take_up(self, unwritten: dict[str, Any]) -> None:
    """Starts with what `unwritten` of another log returned."""
    if not _is_unwritten(unwritten):
      raise workdir_lib.WorkdirError(
        f"{self._workdir}: the note of the newest checkpoint is not what a run "
        "writes. Move that checkpoint away; the run then goes on from the one "
        "before it."
      )
    lines = unwritten["lines"]
    columns = {
      name: np.asarray([line[name] for line in lines], np.float32)
      for name in lines[0]
      if name != "step"
    }
    self._pending = [(np.asarray([line["step"] for line in lines]), columns)]
    self._noted = unwritten["noted"]

  def check(self) -> dict[str, float]:
    """Returns the means over the steps noted since the last `write`.

    Raises:
      NonFiniteError: If a metric is not finite; the message names it.
    """
    if not self._pending:
      return {}
    steps, metrics = self._fetch()
    bad = {name: ~np.isfinite(values) for name, values in metrics.items()}
    for i in np.flatnonzero(np.any(list(bad.values()), 0))[:1]:
      name = next(name for name in bad if bad[name][i])
      raise NonFiniteError(
        f"{name} is {metrics[name][i]} at training step {steps[i]}",
        int(steps[i]),
      )
    return {name: float(values.mean()) for name, values in metrics.items()}

  def write(self, step: int, num_steps: int) -> dict[str, float]:
    """Writes the means of the steps since the last call and a progress line.

    Returns:
      The metrics that were written.

    Raises:
      NonFiniteError: If a metric is not finite, as in `check`.
    """
    means = self.check()
    # JAX sorts metrics by name: without an energy gap, the first is a loss.
    headline = "energy_gap" if "energy_gap" in means else next(iter(means))
    means |= self._noted
    now = time.perf_counter()
    seconds = now - self._time
    means["steps_per_second"] = (step - self._step) / seconds
    means["input_wait_fraction"] = self._wait / seconds
    means["save_wait_fraction"] = self._save_wait / seconds
    self._pending, self._step, self._time = [], step, now
    self._wait = self._save_wait = 0.0
    self._noted = {}
    if not self._active:
      return means
    self._lines.append(json.dumps({"step": step, **means}))
    self._tensorboard.write_scalars(step, means)
    left = (num_steps - step) / means["steps_per_second"]
    print(
      f"step {step}/{num_steps}  {means['steps_per_second']:.2f} steps/s  "
      f"{_duration(left)} left  {headline.replace('_', ' ')} "
      f"{means[headline]:+.3g}",
      flush=True,
    )
    return means

  def write_images(self, step: int, batches: dict[str, np.ndarray]) -> None:
    """Writes a grid of each batch, uint8 `[n, height, width, channels]`."""
    if not self._active:
      return
    grids = {name: images_lib.grid(batch) for name, batch in batches.items()}
    for name, image in grids.items():
      path = self._workdir / "images" / f"{step:08d}_{name}.png"
      files.write_png(path, image)
    self._tensorboard.write_images(
      step, {name: grid[None] for name, grid in grids.items()}
    )

  def close(self) -> None:
    """Writes out what TensorBoard's writer still holds."""
    if self._active:
      self._tensorboard.close()


def _is_unwritten(x: dict[str, Any]) -> bool:
  """Returns whether JSON is what `RunLog.unwritten` returns, and not empty."""
  lines, noted = x.get("lines"), x.get("noted")
  return (
    isinstance(lines, list)
    and all(map(workdir_lib.is_metrics, lines))
    and len({frozenset(line) for line in lines}) == 1
    and isinstance(noted, dict)
    and workdir_lib.is_metrics({"step": 0, **noted})
  )


def _duration(seconds: float) -> str:
  """Formats seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _drop_later_lines(workdir: epath.Path, step: int) -> None:
  """Removes lines of steps after `step`, and what is half written."""
  file = workdir / workdir_lib.METRICS
  if not lines_lib.exists(file):
    return
  kept = workdir_lib.read_metrics(workdir, step)
  text = "".join(json.dumps(line) + "\n" for line in kept)
  lines_lib.replace(file, text)
