"""One workdir, one run; a dead one's lock is not in the way."""

import json
import os
import signal
import threading

import child
import pytest
import tiny

from hatebm_jax import data, train
from hatebm_jax.run import lock, workdir


@pytest.mark.slow
def test_held_by_a_run_until_its_end_however_it_ends(tmp_path):
  path = tmp_path / "run"
  run = child.start(path, "--config.train.num_steps=100000", num_devices=1)
  child.wait_for(run, (path / "metrics.jsonl").exists)
  with (
    pytest.raises(
      workdir.WorkdirError, match=f"in use by process {run.pid} on"
    ),
    lock.hold(path),
  ):
    pass
  output = child.finish(child.start(path, num_devices=1), 1)
  assert f"error: {path} is in use by process {run.pid}" in output
  assert run.poll() is None
  run.send_signal(signal.SIGKILL)
  child.finish(run, -signal.SIGKILL)
  assert (path / "lock.json").exists()
  with lock.hold(path):
    owner = json.loads((path / "lock.json").read_text())
    assert owner["process"] == os.getpid()
  assert not (path / "lock.json").exists()


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(lock, "_TOUCH_SECONDS", 0.2)
  monkeypatch.setattr(lock, "_WATCH_SECONDS", 1.5)


def leave_lock_of_another_host(path):
  """Writes what a run on another host would have left."""
  owner = {"process": 12, "host": "elsewhere", "boot": "of another kernel"}
  path.mkdir()
  (path / "lock.json").write_text(json.dumps(owner))


def test_a_dead_lock_of_another_host_is_taken_over(tmp_path, quick, capsys):
  path = tmp_path / "run"
  leave_lock_of_another_host(path)
  with lock.hold(path):
    owner = json.loads((path / "lock.json").read_text())
    assert owner["process"] == os.getpid()
  assert "last used by process 12 on elsewhere" in capsys.readouterr().out


def test_a_lock_that_another_host_touches_is_left_alone(tmp_path, quick):
  path, ended = tmp_path / "run", threading.Event()
  leave_lock_of_another_host(path)
  opened = os.open(path / "lock.json", os.O_RDWR)
  toucher = threading.Thread(
    target=lock._keep_touching, args=(opened, ended), daemon=True
  )
  toucher.start()
  try:
    with (
      pytest.raises(workdir.WorkdirError, match="process 12 on elsewhere"),
      lock.hold(path),
    ):
      pass
  finally:
    ended.set()
    toucher.join()
    os.close(opened)
  assert json.loads((path / "lock.json").read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"host": 1}'])
def test_a_lock_that_was_not_written_out_is_taken_over(tmp_path, content):
  (tmp_path / "lock.json").write_bytes(content)
  with lock.hold(tmp_path):
    pass


def test_threads_get_it_one_at_a_time(tmp_path):
  refused = []
  with lock.hold(tmp_path / "run"):

    def other():
      try:
        with lock.hold(tmp_path / "run"):
          pass
      except workdir.WorkdirError:
        refused.append(True)

    threads = [threading.Thread(target=other) for _ in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert len(refused) == 4


def test_a_wrong_source_leaves_nothing(tmp_path):
  path = tmp_path / "run"
  with pytest.raises(data.DataError):
    train.train(tiny.config(data__source="folder:/not/there"), path)
  assert not path.exists()
