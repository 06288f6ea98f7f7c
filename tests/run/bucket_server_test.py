"""Servers of buckets that fail: real ones on this machine, behind a proxy."""

import threading

import bucket_proxy
import bucket_servers
import jax
import pytest

from hatebm_jax.run import checkpoint, files


@pytest.fixture(params=["gs", "s3"])
def failing(request):
  """Returns an open proxy and the URL of a bucket behind it."""
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind(request.param, proxy) as url,
  ):
    yield proxy, url


def test_a_server_that_has_failed_must_answer_first(failing):
  """Otherwise each file that a failed run closes would take minutes."""
  proxy, url = failing
  path = files.as_path(f"{url}/x")
  path.write_text("old")
  with proxy.failing(403), pytest.raises(OSError, match="x: the server of the"):
    path.write_text("new")
  with proxy.failing("silent"), pytest.raises(OSError, match="8 s since"):
    path.write_text("new")
  assert path.read_text() == "old"
  path.write_text("new")
  assert path.read_text() == "new"


def test_a_save_that_fails_leaves_no_thread_behind(failing):
  """Orbax's threads waited for minutes, and the end of the process for them."""
  proxy, url = failing
  state = {"a": jax.numpy.arange(12.0), "b": jax.numpy.ones(5)}
  before = set(threading.enumerate())
  with (
    pytest.raises(checkpoint.CheckpointError),
    checkpoint.Checkpoints(f"{url}/run") as saved,
  ):
    saved.save(2, state, {})
    assert saved.go_back(2) == 2  # It waits for the save.
    # Orbax has asked whether the folder is there, and begins to make it.
    with proxy.failing(403, passes=6):
      saved.save(4, state, {})
      saved.close()
  assert checkpoint.steps(f"{url}/run") == [2]
  left = set(threading.enumerate()) - before
  assert all(thread.daemon for thread in left), left
