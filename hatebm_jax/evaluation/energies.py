"""Energies of images under a trained hat."""

import jax
import numpy as np

from hatebm_jax import pixels, sample
from hatebm_jax.metrics import batches

_BATCH_SIZE = 250


def compute(restored: sample.Restored, images: np.ndarray) -> np.ndarray:
  """Returns the energies H(x) of images, computed on all devices.

  Args:
    restored: Run that has a hat.
    images: Images, uint8 `[n, height, width, channels]`.

  Returns:
    float32 `[n]`.
  """
  hat, (variables, _) = restored.networks.hat, restored.variables
  call = jax.jit(lambda v, x: hat.apply(v, pixels.to_float(x)))
  return batches.apply(
    lambda x: call(variables, x), images, _BATCH_SIZE, restored.mesh
  )
