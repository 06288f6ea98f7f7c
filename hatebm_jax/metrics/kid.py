"""Kernel Inception Distance between the features of two sets of images.

It is the unbiased squared maximum mean discrepancy with the kernel
(x . y / dim + 1)^3 (Binkowski et al., ICLR 2018). It is called KID in the
features of the Inception network of 2015, and only there. In the features of
EfficientNet-Lite0 it is called kernel distance.
"""

from typing import NamedTuple

import numpy as np

from hatebm_jax.metrics import efficientnet, inception
from hatebm_jax.metrics.metric import Figure, Reference, Sample

FIGURES = (
  Figure("kid", "KID", "lower", 4),
  Figure("kernel_distance", "kernel distance", "lower", 4),
)
# The figure by the name of the network. The other networks have none.
_FIGURE_IN = {inception.NAME: "kid", efficientnet.NAME: "kernel_distance"}
_SUBSET_SIZE = 1_000


class Estimate(NamedTuple):
  """Mean and spread over subsets.

  Attributes:
    mean: Mean of the subsets' estimates; it may be negative.
    std: Population standard deviation of the subsets' estimates.
  """

  mean: float
  std: float


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns KID, or the kernel distance, if both sets' features are known.

  Only Inception and EfficientNet-Lite0 have this figure. Subsets have 1,000
  images, or all of the smaller set if it has fewer.
  """
  name = _FIGURE_IN.get(reference.network)
  if name is None or reference.features is None:
    return {}
  both = reference.features, sample.features
  size = min(_SUBSET_SIZE, *map(len, both))
  return {name: distance(*both, subset_size=size).mean}


def distance(
  features1: np.ndarray,
  features2: np.ndarray,
  num_subsets: int = 100,
  subset_size: int = _SUBSET_SIZE,
  seed: int = 0,
) -> Estimate:
  """Returns KID over random subsets that are drawn without replacement.

  Args:
    features1: Features of the first set, `[n1, dim]`.
    features2: Features of the second set, `[n2, dim]`.
    num_subsets: Number of subsets.
    subset_size: Number of images in a subset of either set, 2 or more.
    seed: Seed of the subsets.

  Raises:
    ValueError: If a set is smaller than a subset, or the dimensions differ.
  """
  smaller = min(len(features1), len(features2))
  if not 2 <= subset_size <= smaller:
    raise ValueError(
      f"subset_size={subset_size}: expected 2 to {smaller}, the number of "
      "images in the smaller set."
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
  """Returns the unbiased squared discrepancy of two sets `[n, dim]`."""
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
