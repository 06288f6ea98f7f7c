"""Gathers what metrics need of a set of images while the images come.

A set may be larger than the memory: images go through the network in batches,
and only moments, sums and a bounded number of features and images are kept.
"""

from collections.abc import Iterator

import numpy as np

from hatebm_jax.metrics import feature_spaces, inception_score, metric, moments

# Number of features that are kept for metrics that need more than moments.
MAX_FEATURES = 10_000
# Bytes of the images that are kept for metrics that look at images.
_MAX_IMAGE_BYTES = 2**26


class Gathered:
  """What is known of a set of images so far."""

  def __init__(self, space: feature_spaces.Space, num_images: int):
    """Starts an empty set.

    Args:
      space: Network whose features are taken.
      num_images: Number of images that will be added.
    """
    # Small batches are padded, and a small set need not fill a large one.
    size = min(space.batch_size, num_images)
    self._space = space._replace(batch_size=size)
    rng = np.random.default_rng(0)
    self._is_kept = np.zeros(num_images, bool)
    self._is_kept[rng.permutation(num_images)[:MAX_FEATURES]] = True
    num_kept = min(num_images, MAX_FEATURES)
    # The features come in order, and each goes to a random row at once.
    self._row_of = np.argsort(rng.permutation(num_kept))
    self._features = np.empty((num_kept, space.dim), np.float32)
    self._num_features = 0
    self._moments = moments.Running()
    self._sums = inception_score.Sums(num_images)
    self._images: list[np.ndarray] = []
    self._image_bytes = self._seen = 0
    self._waiting: list[np.ndarray] = []

  def add(self, images: np.ndarray) -> None:
    """Adds images, uint8 `[n, height, width, channels]`."""
    room = _MAX_IMAGE_BYTES - self._image_bytes
    first = images[: room // max(images[:1].nbytes, 1)]
    if len(first):
      self._images.append(first)
      self._image_bytes += first.nbytes
    self._measure(self._full_batches(images))

  def sample(self) -> metric.Sample:
    """Returns what metrics see of the set.

    Raises:
      ValueError: If fewer images were added than were announced.
    """
    if self._waiting:
      self._measure([np.concatenate(self._waiting)])
      self._waiting = []
    if self._seen < len(self._is_kept):
      raise ValueError(
        f"expected {len(self._is_kept)} images, found {self._seen}."
      )
    return metric.Sample(
      np.concatenate(self._images),
      self._moments.moments(),
      self._features,
      self._sums,
    )

  def _full_batches(self, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yields whole batches of the network, and lets the rest wait."""
    self._waiting.append(images)
    size = self._space.batch_size
    if sum(map(len, self._waiting)) < size:
      return
    together = np.concatenate(self._waiting)
    end = len(together) // size * size
    # A copy, so that the batches that were measured can be freed.
    self._waiting = [together[end:].copy()] if end < len(together) else []
    for start in range(0, end, size):
      yield together[start : start + size]

  def _measure(self, batches) -> None:
    """Takes the features of batches of images."""
    for features, logits in self._space.stream(batches):
      kept = self._is_kept[self._seen : self._seen + len(features)]
      end = self._num_features + kept.sum()
      self._features[self._row_of[self._num_features : end]] = features[kept]
      self._num_features = end
      self._moments.add(features)
      self._sums.add(logits)
      self._seen += len(features)
