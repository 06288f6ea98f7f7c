"""Sets eight CPU devices for every test, before jax is imported."""

import os
import tempfile

# These tests spend nearly all of their time on compilation. XLA therefore
# optimises little, and a cache keeps compiled programs for the whole session.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
  ]
)
# The workers of pytest-xdist inherit the cache of the first process.
if "PYTEST_XDIST_WORKER" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
    prefix="jax_cache_"
  )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
