"""Inception Score (Salimans et al., NeurIPS 2016)."""

import numpy as np

from hatebm_jax.metrics import inception
from hatebm_jax.metrics.kid import Estimate
from hatebm_jax.metrics.metric import Figure, Reference, Sample

NUM_SPLITS = 10
FIGURES = (Figure("inception_score", "inception score", "higher", 2),)


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns the score if the network is Inception and images are enough."""
  is_inception = reference.network == inception.NAME
  if not is_inception or len(sample.logits) < NUM_SPLITS:
    return {}
  return {"inception_score": score(sample.logits).mean}


def score(
  logits: np.ndarray, num_splits: int = NUM_SPLITS, seed: int = 0
) -> Estimate:
  """Returns exp(E_x KL(p(y | x) || p(y))) over splits of shuffled images.

  Args:
    logits: Logits of the images, `[n, num_classes]`.
    num_splits: Number of parts that the images are split into.
    seed: Seed of the shuffle.

  Raises:
    ValueError: If there are fewer images than splits.
  """
  from scipy import special  # The start of a command does not wait for it.

  if len(logits) < num_splits:
    raise ValueError(
      f"expected at least {num_splits} images, one for each split; found "
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
