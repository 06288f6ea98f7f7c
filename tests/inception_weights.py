"""Makes weights and images for a random Inception network.

They are the same on every machine.
"""

import zlib

import numpy as np


def values(name, shape):
  """Returns the values of one of PyTorch's arrays, by its name.

  With these values the outputs of all layers have about the same size. The
  statistics of batch norm are not trivial.
  """
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  kind = name.rpartition(".")[2]
  if len(shape) > 1:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return (scale * rng.normal(size=shape)).astype(np.float32)
  if kind in ("running_var", "weight"):
    return rng.uniform(0.7, 1.4, shape).astype(np.float32)
  return (0.1 * rng.normal(size=shape)).astype(np.float32)


def images(size):
  """Returns two images of noise over a ramp, uint8 `[2, size, size, 3]`."""
  noise = np.random.default_rng(size).integers(0, 100, (2, size, size, 3))
  ramp = np.linspace(0, 150, size)[None, :, None, None]
  return (noise + ramp).astype(np.uint8)
