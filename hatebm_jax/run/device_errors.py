"""Errors of JAX about devices and memory, in words that say what to do."""

import contextlib
import os
from collections.abc import Iterator

import jax

from hatebm_jax import errors
from hatebm_jax.run import distributed


class DeviceError(errors.UserError):
  """There is no such device, or it has too little memory."""


def check_devices() -> None:
  """Starts JAX's devices.

  Raises:
    DeviceError: If there are none of the kind that is asked for.
  """
  try:
    jax.devices()
  # JAX has assertions about its platforms, too.
  except (AssertionError, RuntimeError) as error:
    asked = jax.config.jax_platforms
    what = f"JAX_PLATFORMS={asked}" if asked else "the devices of this host"
    raise DeviceError(
      f"JAX cannot use {what} ({distributed.first_line(error)}). Install JAX "
      "for the device, with pip install -e '.[cuda]' or '.[tpu]', and check "
      "that no other process uses it. Or unset JAX_PLATFORMS, or set "
      "JAX_PLATFORMS=cpu."
    ) from error


@contextlib.contextmanager
def explained() -> Iterator[None]:
  """Turns an error about too little memory into a DeviceError.

  Raises:
    DeviceError: If the devices or the host have too little memory.
  """
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not _is_about_memory(error):
      raise
    raise DeviceError(
      f"the memory is too small ({distributed.first_line(error)}). Lower "
      "--config.sample.batch_size for sampling and evaluation. For training, "
      "lower --config.train.batch_size, --config.generator.bank_size or "
      "--config.model.width in a new --workdir, or use more devices. Check "
      "that no other process uses the devices"
      f"{_preallocation()}."
    ) from error


def _is_about_memory(error: BaseException) -> bool:
  text = str(error)
  return isinstance(error, MemoryError) or any(
    word in text
    for word in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
  )


def _preallocation() -> str:
  """Returns what limits JAX's share of a GPU's memory, if something does."""
  share = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
  return f", or raise XLA_PYTHON_CLIENT_MEM_FRACTION={share}" if share else ""
