"""Mean and covariance of features, and the files that hold them."""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hatebm_jax import errors
from hatebm_jax.run import npz

# Bound of the values in a file. The product of larger ones could overflow.
_TOO_LARGE = 1e100


class Moments(NamedTuple):
  """Moments of a set of features, float64.

  Attributes:
    mean: Mean `[dim]`.
    covariance: Unbiased covariance `[dim, dim]`.
    count: Number of images; 0 if it is unknown.
  """

  mean: np.ndarray
  covariance: np.ndarray
  count: int


def compute(features: np.ndarray) -> Moments:
  """Returns the moments of features `[n, dim]`, n >= 2.

  Raises:
    ValueError: If there are fewer than two images, or values are not finite.
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


class Running:
  """Moments of features that come in parts; only one part is in memory.

  The parts are merged as Chan, Golub and LeVeque (1983) describe.
  """

  def __init__(self):
    self._count, self._mean, self._scatter = 0, 0.0, 0.0

  def add(self, part: np.ndarray) -> None:
    """Adds features `[n, dim]`, n >= 1."""
    part = np.asarray(part, np.float64)
    part_mean = part.mean(0)
    centred = part - part_mean
    shift = part_mean - self._mean
    total = self._count + len(part)
    self._scatter = (
      self._scatter
      + centred.T @ centred
      + np.outer(shift, shift) * (self._count * len(part) / total)
    )
    self._mean = self._mean + shift * (len(part) / total)
    self._count = total

  def moments(self) -> Moments:
    """Returns the moments of all parts.

    Raises:
      ValueError: If there are fewer than two images, or values are not finite.
    """
    if self._count < 2:
      raise ValueError(
        f"expected features of two images or more, found {self._count}."
      )
    if not np.isfinite(self._scatter).all():
      raise ValueError("expected finite features, found NaN or infinity.")
    covariance = self._scatter / (self._count - 1)
    return Moments(self._mean, covariance, self._count)


def running(parts: Iterable[np.ndarray]) -> Moments:
  """Returns the moments of features that come in parts, see `Running`."""
  found = Running()
  for part in parts:
    found.add(part)
  return found.moments()


def save(path: pathlib.Path, found: Moments) -> None:
  """Writes moments as the usual tools do: an npz with `mu` and `sigma`."""
  npz.save(path, mu=found.mean, sigma=found.covariance, count=found.count)


def load(path: str | os.PathLike[str], dim: int) -> Moments:
  """Reads moments from an npz with `mu` and `sigma`.

  The file may be one of `save` or of another tool.

  Args:
    path: Path of the file.
    dim: Number of features that the moments must have.

  Returns:
    The moments. Their count is 0 if the file does not say it.

  Raises:
    ConfigError: If the file does not exist, or it holds something else.
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
      f"and {sigma.shape}. The statistics belong to another network."
    )
  are_numbers = all(x.dtype.kind in "fiu" for x in (mu, sigma))
  if not are_numbers or not all(
    (np.abs(x) < _TOO_LARGE).all() for x in (mu, sigma)
  ):
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected {expected} of numbers below "
      f"{_TOO_LARGE:g}, found other values."
    )
  # A whole number that is stored as a float is a valid count.
  if count.ndim or count.dtype.kind not in "fiu" or not 0 <= count < 2**53:
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected {expected} and optionally count, the "
      f"number of images; found the count {count}."
    )
  return Moments(mu.astype(np.float64), sigma.astype(np.float64), int(count))
