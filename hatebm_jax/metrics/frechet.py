"""The Frechet distance between the features of two sets of images.

The features of a set are taken for samples of a Gaussian. The distance is the
one between the two Gaussians (Dowson and Landau, 1982). Heusel et al. (NeurIPS
2017) call it FID in the features of their Inception network, and only there.
"""

import numpy as np
from scipy.linalg import lapack

from hatebm_jax.metrics.metric import Figure, Reference, Sample

FIGURES = (
  Figure(
    "frechet_distance",
    title="",  # The distance is called by its network's name.
    better="lower",
    # These are the decimals that the spread over sets of a thousand images and
    # more leaves.
    decimals_in={
      "FID": 2,
      "FD-digits": 1,
      "FD-ResNet10": 3,
      "FD-EfficientNet-Lite0": 1,
    },
  ),
)


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns the distance of a sample to the reference images."""
  value = distance(*reference.moments[:2], *sample.moments[:2])
  return {"frechet_distance": value}


def distance(
  mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
  """Returns ||mu1 - mu2||^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)).

  With sigma1 = A A^T and sigma2 = B B^T, the trace of the root is the sum of
  the singular values of A^T B. This sum is always real and symmetric in the two
  arguments. It is well defined for singular covariances, where a matrix square
  root of the product is not.

  Args:
    mu1: First mean `[dim]`.
    sigma1: First covariance `[dim, dim]`.
    mu2: Second mean `[dim]`.
    sigma2: Second covariance `[dim, dim]`.

  Raises:
    ValueError: If the shapes do not fit, or values are not finite.
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
  product = _factor(sigma1).T @ _factor(sigma2)
  trace_of_root = np.linalg.svd(product, compute_uv=False).sum()
  squared = np.square(mu1 - mu2).sum()
  result = squared + np.trace(sigma1) + np.trace(sigma2) - 2 * trace_of_root
  return max(float(result), 0.0)  # Rounding may leave a distance of -1e-13.


def _factor(sigma: np.ndarray) -> np.ndarray:
  """Returns A `[dim, rank]` with A A^T = sigma, a covariance `[dim, dim]`.

  A is a Cholesky factor with complete pivoting (Higham, 1990), which stops at
  the rank: sets of few images have covariances of a low rank.
  """
  factor, pivots, rank, _ = lapack.dpstrf((sigma + sigma.T) / 2, lower=1)
  result = np.empty((len(sigma), rank))
  result[pivots - 1] = np.tril(factor)[:, :rank]  # LAPACK counts from 1.
  return result
