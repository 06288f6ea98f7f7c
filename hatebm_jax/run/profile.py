"""The profile of a few training steps, which TensorBoard shows."""

import sys
import tempfile
from typing import Any

import jax
import ml_collections
import numpy as np
from clu import profiler
from etils import epath

from hatebm_jax import errors
from hatebm_jax.run import buckets, files

_NUM_STEPS = 3
_FILES = "plugins/profile/*/*.xplane.pb"


def check(group: ml_collections.ConfigDict) -> None:
  """Checks that a profile that is asked for lies within the training.

  Args:
    group: The group `config.train`.

  Raises:
    ConfigError: If it does not.
  """
  if group.profile_at > group.num_steps:
    raise errors.ConfigError(
      f"config.train.profile_at={group.profile_at}: expected a training step "
      f"up to config.train.num_steps={group.num_steps}, or 0 for no profile."
    )


class Profile:
  """Profiles the dispatches that hold the chosen training steps.

  A resumed run that is past these steps profiles its next ones, unless the
  workdir has a profile already.
  """

  def __init__(
    self,
    path: epath.Path,
    group: ml_collections.ConfigDict,
    first_step: int,
  ):
    """Chooses the training steps.

    Args:
      path: Path of the workdir.
      group: The group `config.train`.
      first_step: Number of training steps already taken.
    """
    self._path = path
    self._begin, self._end = _choose(path, group, first_step)
    self._started_at = 0
    self._copies = None

  def before(self, steps: np.ndarray) -> None:
    """Starts the profile if it is due.

    Args:
      steps: Numbers of the training steps of the next dispatch, `[n]`.
    """
    if not self._started_at and self._begin <= steps[-1] and self._end > 0:
      if buckets.is_bucket(self._path):
        # The profiler writes local files alone.
        self._copies = tempfile.TemporaryDirectory(prefix="hatebm_profile_")
      profiler.start(self._copies.name if self._copies else str(self._path))
      self._started_at = int(steps[0])

  def after(self, steps: np.ndarray, state: Any) -> None:
    """Writes the profile if all its steps are taken.

    Args:
      steps: Numbers of the training steps of the last dispatch, `[n]`.
      state: State after these steps, which the devices may still compute.
    """
    if self._started_at and steps[-1] >= self._end:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    """Writes a profile that has started, also of fewer steps."""
    if not self._started_at:
      return
    profiler.stop()
    if self._copies:
      files.upload_all(self._copies.name, self._path)
      self._copies.cleanup()
    if jax.process_index() == 0:
      print(
        f"A profile of the training steps from {self._started_at} on is in "
        f"{self._path / 'plugins'}. TensorBoard shows it.",
        flush=True,
      )
    self._started_at, self._end = 0, -1  # There is no second one.


def _choose(
  path: epath.Path, group: ml_collections.ConfigDict, first_step: int
) -> tuple[int, int]:
  """Returns the first and the last training step of the profile."""
  begin = group.profile_at
  if begin == 0:
    return 0, -1
  if begin <= first_step:
    if any(path.glob(_FILES)):
      return 0, -1
    begin = first_step + 1
  if begin > group.num_steps and jax.process_index() == 0:
    print(
      f"config.train.profile_at={group.profile_at}: no profile is written, "
      f"because the run has taken all its {group.num_steps} training steps.",
      file=sys.stderr,
      flush=True,
    )
  return begin, min(begin + _NUM_STEPS - 1, group.num_steps)
