"""The Frechet distance between the features of two sets of images.

Features are taken for samples of a Gaussian; the distance is that between the
Gaussians (Dowson and Landau, 1982; Heusel et al., NeurIPS 2017, who call it FID
in the feature space of their Inception network, and in no other).
"""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hatebm_jax import errors
from hatebm_jax.run import npz

# Of moments in a file; the product of larger ones could overflow.
_TOO_LARGE = 1e100


class Moments(NamedTuple):
  """Moments of a set of features, float64.

  Attributes:
    mean: `[dim]`.
    covariance: unbiased, `[dim, dim]`.
    count: number of images.
  """

  mean: np.ndarray
  covariance: np.ndarray
  count: int


def moments(features: np.ndarray) -> Moments:
  """Returns the moments of features `[n, dim]`, n >= 2.

  Raises:
    ValueError: if there are fewer than two images, or values are not finite.
  """
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or len(features) < 2:
    raise ValueError(
      "expected features [n, dim] of two images or more, found shape "
      f"{features.shape}."
    )
  if not np.isfinite(features).all():
    raise ValueError("expected finite features, found NaN or infinity.")
  mean = features.mean(0)
  centred = features - mean
  covariance = centred.T @ centred / (len(features) - 1)
  return Moments(mean, covariance, len(features))


def running(parts: Iterable[np.ndarray]) -> Moments:
  """Returns the moments of features that come in parts `[n, dim]`, n >= 1.

  One part at a time is in memory (Chan, Golub and LeVeque, 1983).

  Raises:
    ValueError: as `moments`.
  """
  count, mean, scatter = 0, 0.0, 0.0
  for part in parts:
    part = np.asarray(part, np.float64)
    part_mean = part.mean(0)
    centred = part - part_mean
    shift = part_mean - mean
    total = count + len(part)
    scatter = (
      scatter
      + centred.T @ centred
      + np.outer(shift, shift) * (count * len(part) / total)
    )
    mean, count = mean + shift * (len(part) / total), total
  if count < 2:
    raise ValueError(f"expected features of two images or more, found {count}.")
  if not np.isfinite(scatter).all():
    raise ValueError("expected finite features, found NaN or infinity.")
  return Moments(mean, scatter / (count - 1), count)


def save(path: pathlib.Path, found: Moments) -> None:
  """Writes moments as the usual tools do: an npz with `mu` and `sigma`."""
  npz.save(path, mu=found.mean, sigma=found.covariance, count=found.count)


def load(path: str | os.PathLike[str], dim: int) -> Moments:
  """Reads moments from an npz with `mu` and `sigma`, of ours or other tools.

  Args:
    path: of the npz.
    dim: of the features that they must be of.

  Returns:
    The moments; where the file has no `count`, that is 0: unknown.

  Raises:
    ConfigError: if there is no such file, or it holds something else.
  """
  expected = f"an .npz with mu [{dim}] and sigma [{dim}, {dim}]"
  arrays = npz.read(
    path, ("mu", "sigma"), repr(os.fspath(path)), expected, ("count",)
  )
  mu, sigma = arrays["mu"], arrays["sigma"]
  count = arrays.get("count", np.array(0))
  if mu.shape != (dim,) or sigma.shape != (dim, dim):
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected {expected}, found the shapes {mu.shape} "
      f"and {sigma.shape}: statistics of another network."
    )
  are_numbers = all(x.dtype.kind in "fiu" for x in (mu, sigma))
  if not are_numbers or not all(
    (np.abs(x) < _TOO_LARGE).all() for x in (mu, sigma)
  ):
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected {expected}, found something else than "
      f"numbers below {_TOO_LARGE:g}."
    )
  # A count as a float is a whole number too.
  if count.ndim or count.dtype.kind not in "fiu" or not 0 <= count < 2**53:
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected {expected} and, if any, their count: a "
      f"number of images; found the count {count}."
    )
  return Moments(mu.astype(np.float64), sigma.astype(np.float64), int(count))


def distance(
  mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
  """Returns ||mu1 - mu2||^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)).

  The trace of the root is the sum of the singular values of
  sigma1^(1/2) sigma2^(1/2): always real, symmetric in the two arguments, and
  well defined for singular covariances, where a matrix square root of the
  product is not.

  Args:
    mu1: mean `[dim]`.
    sigma1: covariance `[dim, dim]`.
    mu2: mean `[dim]`.
    sigma2: covariance `[dim, dim]`.

  Raises:
    ValueError: if shapes do not fit, or values are not finite.
  """
  arrays = [np.asarray(x, np.float64) for x in (mu1, sigma1, mu2, sigma2)]
  mu1, sigma1, mu2, sigma2 = arrays
  dim = mu1.size
  expected = [(dim,), (dim, dim)] * 2
  if [x.shape for x in arrays] != expected:
    raise ValueError(
      f"expected shapes {expected}, found {[x.shape for x in arrays]}."
    )
  if not all(np.isfinite(x).all() for x in arrays):
    raise ValueError("expected finite moments, found NaN or infinity.")
  if np.array_equal(mu1, mu2) and np.array_equal(sigma1, sigma2):
    return 0.0
  product = _root(sigma1) @ _root(sigma2)
  trace_of_root = np.linalg.svd(product, compute_uv=False).sum()
  squared = np.square(mu1 - mu2).sum()
  result = squared + np.trace(sigma1) + np.trace(sigma2) - 2 * trace_of_root
  return max(float(result), 0.0)  # Rounding may leave a distance of -1e-13.


def _root(sigma: np.ndarray) -> np.ndarray:
  """Square root of a covariance; eigenvalues below zero are rounding."""
  values, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
