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
  if not is_inception or sample.class_sums.num_images < NUM_SPLITS:
    return {}
  return {"inception_score": sample.class_sums.score().mean}


class Sums:
  """Sums over the logits of a set, for its score; no logits are kept.

  Attributes:
    num_images: Number of images of the set.
  """

  def __init__(
    self, num_images: int, num_splits: int = NUM_SPLITS, seed: int = 0
  ):
    """Starts the sums.

    Args:
      num_images: Number of images whose logits will be added.
      num_splits: Number of parts that the images are split into.
      seed: Seed of the shuffle before the split.
    """
    self.num_images = num_images
    order = np.random.default_rng(seed).permutation(num_images)
    parts = np.array_split(order, num_splits)
    self._sizes = np.array([len(part) for part in parts])
    self._split_of = np.empty(num_images, int)
    for i, part in enumerate(parts):
      self._split_of[part] = i
    self._seen = 0
    self._negative_entropy = np.zeros(num_splits)
    self._probabilities: np.ndarray | float = 0.0

  def add(self, logits: np.ndarray) -> None:
    """Adds the logits of the next images, `[n, num_classes]`."""
    from scipy import special  # The start of a command does not wait for it.

    log_p = special.log_softmax(np.asarray(logits, np.float64), axis=1)
    p = np.exp(log_p)
    splits = self._split_of[self._seen : self._seen + len(p)]
    self._seen += len(p)
    member = splits == np.arange(len(self._sizes))[:, None]
    self._probabilities = self._probabilities + member @ p
    self._negative_entropy += member @ (p * log_p).sum(1)

  def score(self) -> Estimate:
    """Returns the mean and the spread of the parts' scores.

    Raises:
      ValueError: If there are fewer images than parts, or logits are missing.
    """
    num_splits = len(self._sizes)
    if self._seen < max(num_splits, self.num_images):
      raise ValueError(
        f"expected at least {num_splits} images, one for each split, and the "
        f"logits of all; found {self._seen} of {self.num_images}."
      )
    marginal = self._probabilities / self._sizes[:, None]
    # A class that no image of a part has adds nothing.
    logs = np.log(np.where(marginal > 0, marginal, 1))
    divergence = self._negative_entropy / self._sizes - (marginal * logs).sum(1)
    scores = np.exp(divergence)
    return Estimate(float(scores.mean()), float(scores.std()))


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
  sums = Sums(len(logits), num_splits, seed)
  sums.add(logits)
  return sums.score()
