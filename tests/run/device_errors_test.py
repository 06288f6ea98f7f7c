"""What JAX says of missing devices and little memory, in one line of advice."""

import child
import jax
import jax.numpy as jnp
import pytest

from hatebm_jax.run import device_errors


@pytest.mark.parametrize("platform", ["cuda", "tpu", "rocm", "no_such"])
def test_a_platform_that_is_not_there(platform):
  code = f"""
import os
os.environ["JAX_PLATFORMS"] = {platform!r}
from hatebm_jax.run import device_errors
try:
  device_errors.check_devices()
except device_errors.DeviceError as error:
  print(error)
"""
  (line,) = child.python(code).splitlines()
  assert line.startswith(f"JAX cannot use JAX_PLATFORMS={platform} (")
  assert "set JAX_PLATFORMS=cpu" in line


def test_devices_that_are_there():
  device_errors.check_devices()


def test_too_little_memory():
  # No computer has this much.
  too_much = jax.jit(lambda x: jnp.ones((2**45,), jnp.float32) + x)
  refused = pytest.raises(device_errors.DeviceError, match=r"too small.*batch")
  with refused, device_errors.explained():
    too_much(1.0).block_until_ready()
  with refused, device_errors.explained():
    raise MemoryError


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_other_errors_stay_what_they_are(error):
  with pytest.raises(error), device_errors.explained():
    raise error
  bug = jax.errors.JaxRuntimeError("INTERNAL: a bug")
  with pytest.raises(type(bug), match="INTERNAL"), device_errors.explained():
    raise bug
