"""The lock of a workdir in a bucket, on real servers on this machine."""

import json
import os
import subprocess
import sys
import threading

import child
import pytest

from hatebm_jax.run import (
  bucket_lock,
  conditional,
  files,
  lock,
  owner,
  workdir,
)

HOLD = """
import sys, time
from hatebm_jax.run import files, lock
lock._TOUCH_SECONDS = 0.2
with lock.hold(files.as_path(sys.argv[1])):
  print("holds", flush=True)
  time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(lock, "_TOUCH_SECONDS", 0.2)
  monkeypatch.setattr(lock, "_WATCH_SECONDS", 1.5)


def holder(path):
  return json.loads((path / "lock.json").read_text())


def leave_lock(path, **note):
  """Writes what another run would have left."""
  files.write_json(path / "lock.json", owner.note() | note)


def test_only_the_first_of_many_writers_creates_or_replaces(bucket_url):
  file = files.as_path(bucket_url) / "x"
  conditional.create(file, b"first")
  with pytest.raises(FileExistsError):
    conditional.create(file, b"second")
  version = conditional.version(file)
  conditional.replace(file, b"third", version)
  with pytest.raises(FileExistsError):
    conditional.replace(file, b"fourth", version)
  assert file.read_bytes() == b"third"
  file.unlink()
  with pytest.raises(FileExistsError):
    conditional.replace(file, b"fifth", version)
  assert not file.exists()


def test_threads_get_it_one_at_a_time(bucket_url, quick, capsys):
  path, refused = files.as_path(bucket_url), []
  with lock.hold(path):
    assert holder(path)["process"] == os.getpid()

    def other():
      try:
        with lock.hold(path):
          pass
      except workdir.WorkdirError as error:
        refused.append(str(error))

    threads = [threading.Thread(target=other) for _ in range(3)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert len(refused) == 3
  assert f"{path} is in use by process {os.getpid()} on" in refused[0]
  assert not (path / "lock.json").exists()
  assert "sign of life" in capsys.readouterr().out


def test_the_lock_of_a_dead_process_is_taken_over_at_once(bucket_url, capsys):
  path = files.as_path(bucket_url)
  ended = subprocess.Popen(["true"])
  ended.wait()
  leave_lock(path, process=ended.pid)
  with lock.hold(path):
    assert holder(path)["process"] == os.getpid()
  assert not capsys.readouterr().out


@pytest.mark.parametrize("content", [{"host": "elsewhere"}, {"boot": None}])
def test_a_dead_lock_of_another_host_is_taken_over(
  bucket_url, quick, capsys, content
):
  path = files.as_path(bucket_url)
  leave_lock(path, **content)
  with lock.hold(path):
    assert holder(path)["token"]
  assert "Waiting 1.5 s" in capsys.readouterr().out


def test_a_process_whose_lock_was_taken_ends(bucket_url):
  path = files.as_path(bucket_url)
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(path)],
    env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    cwd=child.ROOT,
    text=True,
    **child.STDERR_TOO,
  )
  assert process.stdout.readline() == "holds\n"
  # A lock that somebody has removed is written again.
  first = holder(path)
  (path / "lock.json").unlink()
  child.wait_for(process, (path / "lock.json").exists, pause=0.1)
  assert holder(path)["token"] == first["token"]
  leave_lock(path, token="of another")
  output = child.finish(process, 1)
  assert "was taken over by another process" in output
  assert holder(path)["token"] == "of another"


def test_a_lock_that_was_just_taken_over_is_not_overwritten(
  bucket_url, monkeypatch
):
  path = files.as_path(bucket_url)
  held, replace = bucket_lock._Lock(path, 10, 75), conditional.replace
  held.take()
  assert held.touch() and holder(path)["touches"] == 2

  def replace_late(*arguments):
    monkeypatch.setattr(conditional, "replace", replace)
    leave_lock(path, token="of another")
    replace(*arguments)

  for end in (held.touch, held.release):
    monkeypatch.setattr(conditional, "replace", replace_late)
    assert not end()
    assert holder(path)["token"] == "of another"
    leave_lock(path, token=held._token)


def test_a_lock_whose_answer_was_lost_is_held(bucket_url, monkeypatch):
  """The request is sent again then, and finds what it has written itself."""
  path = files.as_path(bucket_url)
  held = bucket_lock._Lock(path, 10, 75)
  for name in ("create", "replace"):
    write = getattr(conditional, name)

    def twice(*arguments, write=write):
      write(*arguments)
      write(*arguments)

    monkeypatch.setattr(conditional, name, twice)
  held.take()
  ended = subprocess.Popen(["true"])
  ended.wait()
  leave_lock(path, process=ended.pid)
  held.take()
  monkeypatch.undo()
  assert held.touch()
  held.release()
  assert not (path / "lock.json").exists()
