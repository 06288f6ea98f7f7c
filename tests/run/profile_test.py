"""A profile that is asked for is written, or refused, or a word says why."""

import contextlib

import jax.numpy as jnp
import ml_collections
import pytest

from hatebm_jax import errors, feed
from hatebm_jax.run import files, profile


def options(at, num_steps, size=1):
  return ml_collections.ConfigDict(
    {"profile_at": at, "num_steps": num_steps, "steps_per_dispatch": size}
  )


def run(path, group, first_step=0, stop_after=None):
  """Takes the steps of a run; returns which ones were profiled."""
  profiled = profile.Profile(files.as_path(path), group, first_step)
  taken, state = [], jnp.zeros(3)
  with contextlib.closing(profiled):
    for steps in feed.dispatch_groups(
      first_step, group.num_steps, group.steps_per_dispatch
    ):
      profiled.before(steps)
      taken += steps.tolist() if profiled._started_at else []
      state = state + len(steps)
      profiled.after(steps, state)
      if stop_after and steps[-1] >= stop_after:
        break
  return taken


def written(path):
  return list(path.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize(
  "group, first_step, expected",
  [
    (options(1, 20), 0, [1, 2, 3]),
    (options(7, 20), 0, [7, 8, 9]),
    (options(19, 20), 0, [19, 20]),
    (options(20, 20), 0, [20]),
    (options(1, 1), 0, [1]),
    (options(5, 20, 4), 0, [5, 6, 7, 8]),
    (options(7, 20, 4), 0, [5, 6, 7, 8, 9, 10, 11, 12]),
    (options(19, 20, 7), 0, [15, 16, 17, 18, 19, 20]),
    (options(3, 4, 100), 0, [1, 2, 3, 4]),
    (options(9, 20), 6, [9, 10, 11]),
    # These runs are past the steps, and there is no profile yet.
    (options(5, 20), 5, [6, 7, 8]),
    (options(2, 20), 17, [18, 19, 20]),
    (options(2, 20, 4), 18, [19, 20]),
    (options(20, 21), 20, [21]),
  ],
)
def test_it_is_written(tmp_path, capsys, group, first_step, expected):
  assert run(tmp_path, group, first_step) == expected
  assert written(tmp_path)
  assert f"from {expected[0]} on is in" in capsys.readouterr().out


def test_a_run_that_stops_meanwhile_writes_what_it_has(tmp_path):
  assert run(tmp_path, options(4, 20), stop_after=5) == [4, 5]
  assert written(tmp_path)


def test_a_resumed_run_does_not_write_it_again(tmp_path, capsys):
  group = options(2, 20)
  run(tmp_path, group)
  (before,) = written(tmp_path)
  assert run(tmp_path, group, first_step=10) == []
  assert written(tmp_path) == [before]
  assert "no profile" not in capsys.readouterr().err


@pytest.mark.parametrize("at", [0, 3])
def test_none_is_written_if_no_step_is_left(tmp_path, capsys, at):
  assert run(tmp_path, options(at, 8), first_step=8) == []
  assert not written(tmp_path)
  said = "profile_at=3: no profile is written" in capsys.readouterr().err
  assert said == (at > 0)


def test_a_step_beyond_the_last_is_refused():
  with pytest.raises(errors.ConfigError, match=r"profile_at=9: .* up to .*=8"):
    profile.check(options(9, 8))
  for at in (0, 1, 8):
    profile.check(options(at, 8))


def test_a_workdir_may_have_any_name(tmp_path):
  path = tmp_path / "v[1]"
  assert run(path, options(1, 5)) == [1, 2, 3]
  assert run(path, options(1, 5), first_step=4) == []
