"""Whole runs in a bucket whose server is slow or fails, behind a proxy."""

import time

import bucket_proxy
import bucket_servers
import child
import pytest
from bucket_runs import assert_same_results, start

from hatebm_jax.run import checkpoint, files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """Returns the workdir of an uninterrupted run in a folder."""
  path = tmp_path_factory.mktemp("whole") / "run"
  child.finish(start(path))
  return path


@pytest.fixture(params=["gs", "s3"])
def kind(request):
  return request.param


def test_a_slow_server_that_fails_now_and_then(kind, whole, tmp_path):
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind(kind, proxy) as url,
  ):
    path = files.as_path(f"{url}/run")
    proxy.share, proxy.delay = 0.05, 0.02
    run = start(path)
    child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
    proxy.close()
    time.sleep(5)
    assert run.poll() is None
    proxy.open()
    assert "warning" not in child.finish(run)
    proxy.share = 0.0
    assert sum(proxy.counts.values()) > 5
    assert_same_results(path, whole, tmp_path)


@pytest.mark.parametrize("failure", [503, "closed"])
def test_a_server_that_fails_for_good(kind, failure, whole, tmp_path):
  """The run gives up, and nothing is lost."""
  with (
    bucket_proxy.Proxy() as proxy,
    bucket_servers.behind(kind, proxy) as url,
  ):
    path = files.as_path(f"{url}/run")
    run = start(path)
    child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
    if failure == "closed":
      proxy.close()
    else:
      proxy.share, proxy.failures = 1.0, (failure,)
    begin = time.monotonic()
    output = child.finish(run, 1)
    print(f"{kind}, {failure}: ended after {time.monotonic() - begin:.0f} s")
    assert output.count("error:") == 1 and "Traceback" not in output, output
    assert str(path) in output.splitlines()[-1]
    if failure == "closed":
      proxy.open()
    proxy.share = 0.0
    assert "Resuming at step" in child.finish(start(path))
    assert_same_results(path, whole, tmp_path)
