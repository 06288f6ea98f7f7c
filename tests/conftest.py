"""Eight CPU devices for every test; must run before jax is imported."""

import os
import tempfile

# Nearly all the time of these tests is compilation: little is optimised, and
# what is compiled twice in a session is compiled once.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
  ]
)
if "PYTEST_XDIST_WORKER" not in os.environ:  # Workers share that of the first.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
    prefix="jax_cache_"
  )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
