"""Inception Score (Salimans et al., NeurIPS 2016)."""

import numpy as np
from scipy import special

from hatebm_jax.metrics.kid import Estimate

NUM_SPLITS = 10


def score(
  logits: np.ndarray, num_splits: int = NUM_SPLITS, seed: int = 0
) -> Estimate:
  """Returns exp(E_x KL(p(y | x) || p(y))), over splits of shuffled images.

  Args:
    logits: of the images, `[n, num_classes]`.
    num_splits: parts that the images are cut into.
    seed: of the shuffle.

  Raises:
    ValueError: if there are fewer images than splits.
  """
  if len(logits) < num_splits:
    raise ValueError(
      f"expected {num_splits} images or more, for as many splits, found "
      f"{len(logits)}."
    )
  order = np.random.default_rng(seed).permutation(len(logits))
  log_p = special.log_softmax(np.asarray(logits, np.float64)[order], axis=1)
  scores = []
  for part in np.array_split(log_p, num_splits):
    log_marginal = special.logsumexp(part, axis=0) - np.log(len(part))
    divergence = (np.exp(part) * (part - log_marginal)).sum(1)
    scores.append(np.exp(divergence.mean()))
  return Estimate(float(np.mean(scores)), float(np.std(scores)))
