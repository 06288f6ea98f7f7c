"""Sets eight CPU devices for every test, before jax is imported."""

import os
import tempfile
import uuid
from importlib import metadata

import bucket_servers
import pytest

# These tests spend nearly all of their time on compilation. XLA therefore
# optimises little, and a cache keeps compiled programs for the whole session.
_PINNED_FLAGS = (
  # Fusion emitters compile three times as long. jaxlib 0.12 does not know this
  # flag, and would end the process.
  ["--xla_cpu_use_fusion_emitters=false"]
  if metadata.version("jaxlib").startswith("0.10.")
  else []
)
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    *_PINNED_FLAGS,
  ]
)
# The workers of pytest-xdist inherit the cache of the first process.
if "PYTEST_XDIST_WORKER" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
    prefix="jax_cache_"
  )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def gs_server():
  """Returns the URL of a bucket of fake-gcs-server."""
  with bucket_servers.gs() as url:
    yield url


@pytest.fixture(scope="session")
def s3_server():
  """Returns the URL of a bucket of moto's server."""
  with bucket_servers.s3() as url:
    yield url


@pytest.fixture(params=["gs", "s3"])
def bucket_url(request):
  """Returns a URL in a bucket, below which there is nothing."""
  server = request.getfixturevalue(f"{request.param}_server")
  return f"{server}/{uuid.uuid4().hex}"
