"""Energies of images under a trained hat."""

from collections.abc import Callable

import jax
import numpy as np

from hatebm_jax import pixels, sample
from hatebm_jax.metrics import batches

_BATCH_SIZE = 250


def scorer(restored: sample.Restored) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the energies H(x) as one compiled function.

  Args:
    restored: Run that has a hat.

  Returns:
    A function of images, uint8 `[n, height, width, channels]`. It computes on
    all devices and returns float32 `[n]`.
  """
  hat, (variables, _) = restored.networks.hat, restored.variables
  call = jax.jit(lambda v, x: hat.apply(v, pixels.to_float(x)))
  return lambda images: batches.apply(
    lambda x: call(variables, x), images, _BATCH_SIZE, restored.mesh
  )
