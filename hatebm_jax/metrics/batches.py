"""Images through a network, so many at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def apply(
  function: Callable[[np.ndarray], Any], images: np.ndarray, batch_size: int
) -> Any:
  """Returns a pytree of NumPy arrays `[n, ...]` of images `[n, ...]`.

  Args:
    function: of a batch of images, to a pytree of arrays `[batch, ...]`.
    images: all of them.
    batch_size: of all batches but the last, which may be smaller.
  """
  starts = range(0, len(images), batch_size)
  parts = [jax.device_get(function(images[i : i + batch_size])) for i in starts]
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
