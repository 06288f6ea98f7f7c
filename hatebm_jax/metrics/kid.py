"""Kernel Inception Distance, between features of two sets of images.

Squared maximum mean discrepancy with the kernel (x . y / dim + 1)^3, unbiased
(Binkowski et al., ICLR 2018). Called KID in the features of the Inception
network of 2015, and in no others.
"""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
  """Mean and spread over subsets.

  Attributes:
    mean: of the subsets' estimates; may be negative.
    std: their standard deviation, of the population.
  """

  mean: float
  std: float


def distance(
  features1: np.ndarray,
  features2: np.ndarray,
  num_subsets: int = 100,
  subset_size: int = 1_000,
  seed: int = 0,
) -> Estimate:
  """Returns KID over random subsets, drawn without replacement.

  Args:
    features1: `[n1, dim]`.
    features2: `[n2, dim]`.
    num_subsets: how many.
    subset_size: images of a subset, of either set; 2 or more.
    seed: of the subsets.

  Raises:
    ValueError: if a set is smaller than a subset, or dimensions differ.
  """
  smaller = min(len(features1), len(features2))
  if not 2 <= subset_size <= smaller:
    raise ValueError(
      f"subset_size={subset_size}: expected 2 to {smaller}, the images of the "
      "smaller set."
    )
  rng = np.random.default_rng(seed)
  estimates = [
    discrepancy(
      *(
        features[rng.choice(len(features), subset_size, replace=False)]
        for features in (features1, features2)
      )
    )
    for _ in range(num_subsets)
  ]
  return Estimate(float(np.mean(estimates)), float(np.std(estimates)))


def discrepancy(features1: np.ndarray, features2: np.ndarray) -> float:
  """Unbiased squared discrepancy of two sets of as many images, `[n, dim]`."""
  x, y = (np.asarray(z, np.float64) for z in (features1, features2))
  if x.shape != y.shape:
    raise ValueError(f"expected equal shapes, found {x.shape} and {y.shape}.")
  n = len(x)
  within = sum(
    kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y))
  )
  return float(within / (n * (n - 1)) - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x @ y.T / x.shape[1] + 1) ** 3
