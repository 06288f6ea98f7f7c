import json

import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from hatebm_jax.run import logs, workdir


def test_lines_hold_the_means_of_their_steps(tmp_path, capsys):
  log = logs.RunLog(tmp_path, 0, active=True)
  for step, gap in enumerate([1.0, 3.0, 10.0], 1):
    log.add(np.array([step]), {"energy_gap": jnp.array([gap])}, wait=0.0)
    if step >= 2:
      log.write(step, num_steps=10)
  log.close()
  lines = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  assert [(line["step"], line["energy_gap"]) for line in lines] == [
    (2, 2.0),
    (3, 10.0),
  ]
  assert lines[0]["input_wait_fraction"] == 0.0
  progress = capsys.readouterr().out.splitlines()
  assert progress[0].startswith("step 2/10") and "left" in progress[0]
  assert list(tmp_path.glob("events.out.tfevents.*"))


def test_the_time_of_saving_is_a_share_of_the_next_line(tmp_path):
  log = logs.RunLog(tmp_path, 0, active=False)
  shares = []
  for step, seconds in enumerate((1e9, 0.0), 1):
    log.add(np.array([step]), {"gap": jnp.ones(1)}, wait=0.0)
    log.add_saving(seconds)
    line = log.write(step, num_steps=2)
    shares.append(line["save_wait_fraction"] / line["steps_per_second"])
  # The share is of the time of one step.
  np.testing.assert_allclose(shares, [1e9, 0.0], rtol=1e-6)


def test_what_is_noted_stands_in_the_next_line(tmp_path, capsys):
  log = logs.RunLog(tmp_path, 0, active=True)
  for step in (1, 2):
    log.add(np.array([step]), {"a_loss": jnp.ones(1), "b": jnp.zeros(1)}, 0.0)
    if step == 1:
      log.note({"test_loss": 5.0})
    log.write(step, num_steps=2)
  log.close()
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  first, second = (json.loads(line) for line in lines)
  assert first["test_loss"] == 5.0 and "test_loss" not in second
  # Without an energy gap the progress line shows the first metric.
  assert "a loss +1" in capsys.readouterr().out


def test_what_is_not_yet_written_can_be_taken_along(tmp_path):
  gaps = np.array([0.1, 0.7, 1.9], np.float32)

  def add(log, index):
    log.add(np.array([index + 1]), {"gap": jnp.array(gaps[index, None])}, 0.0)

  log = logs.RunLog(tmp_path, 0, active=False)
  assert log.unwritten() == {}
  add(log, 0)
  log.note({"test_loss": 5.0})
  add(log, 1)
  unwritten = json.loads(json.dumps(log.unwritten()))
  assert unwritten == {
    "lines": [
      {"step": 1, "gap": float(gaps[0])},
      {"step": 2, "gap": float(gaps[1])},
    ],
    "noted": {"test_loss": 5.0},
  }
  log = logs.RunLog(tmp_path, 2, active=False, unwritten=unwritten)
  add(log, 2)
  means = log.write(3, num_steps=3)
  assert means["gap"] == float(gaps.mean()) and means["test_loss"] == 5.0
  assert log.unwritten() == {}


def test_what_another_version_left_unwritten_is_left_out(tmp_path):
  unwritten = {"lines": [{"step": 1, "old": 0.5}], "noted": {}}
  log = logs.RunLog(tmp_path, 1, active=False, unwritten=unwritten)
  log.add(np.array([2]), {"gap": jnp.ones(1)}, 0.0)
  assert log.check() == {"gap": 1.0}


@pytest.mark.parametrize(
  "unwritten",
  [
    {"lines": []},
    {"lines": [], "noted": {}},
    {"lines": [{"gap": 0.5}], "noted": {}},
    {"lines": [{"step": 1, "gap": "x"}], "noted": {}},
    {"lines": [{"step": 1}, {"step": 2, "gap": 0.5}], "noted": {}},
    {"lines": [{"step": 1, "gap": 0.5}], "noted": {"test_loss": []}},
    {"lines": [{"step": 1, "gap": 0.5}], "noted": None},
  ],
)
def test_a_note_that_no_run_writes_is_refused(tmp_path, unwritten):
  with pytest.raises(workdir.WorkdirError, match="Move that checkpoint away"):
    logs.RunLog(tmp_path, 1, active=False, unwritten=unwritten)


def test_the_first_bad_step_and_metric_are_named(tmp_path):
  log = logs.RunLog(tmp_path, 0, active=False)
  log.add(np.array([1]), {"gap": jnp.ones(1), "loss": jnp.ones(1)}, 0.0)
  log.add(
    np.array([2, 3]),
    {"gap": jnp.array([1.0, np.nan]), "loss": jnp.array([np.inf, 1.0])},
    0.0,
  )
  with pytest.raises(logs.NonFiniteError, match=r"loss is inf at .* step 2"):
    log.check()


def test_a_resumed_run_drops_later_and_broken_lines(tmp_path):
  file = tmp_path / "metrics.jsonl"
  lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
  file.write_text("\n".join(lines) + '\n{"step": 4, "lo')
  logs.RunLog(tmp_path, 2, active=True).close()
  assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_numbers_once_written_are_not_kept(tmp_path, capsys):
  def resident_mib_after(steps):
    log = logs.RunLog(tmp_path, steps[0] - 1, active=True)
    for step in steps:
      log.add(np.array([step]), {"gap": np.array([1.0])}, 0.0)
      log.note({f"value_{i}": step + i / 20 for i in range(20)})
      log.write(step, num_steps=steps[-1])
    log.close()
    return psutil.Process().memory_info().rss / 2**20

  # The libraries first take what they need. Kept, 40,000 numbers are 28 MiB.
  before = resident_mib_after(range(1, 501))
  assert resident_mib_after(range(501, 2501)) - before < 14
