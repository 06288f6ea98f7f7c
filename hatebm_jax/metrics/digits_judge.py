"""A judge of digit images: a classifier of scikit-learn's real digits.

An image is recognised when the judge is over 90 % sure of its class. The judge
is a calibrated forest of extremely randomized trees, fitted to the training
split.
Its trees disagree on what is not a digit: it is sure of none of 500 images of
noise, or of digits with permuted pixels, where a calibrated RBF support vector
machine is sure of half of them. (Of pixelwise means of two random digits, some
of which are digits, it is sure of a third.)
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn import calibration, ensemble, model_selection

SURE = 0.9  # probability above which an image counts as recognised
_NUM_TREES = 300


class Verdict(NamedTuple):
  """What a judge says of a set of images.

  Attributes:
    recognised: share of the images that it is over 90 % sure of.
    rarest: smallest share of the images that any class gets, recognised or not.
  """

  recognised: float
  rarest: float


def fit(images: np.ndarray, labels: np.ndarray) -> Any:
  """Fits the judge.

  Args:
    images: uint8 `[n, height, width, channels]`.
    labels: integers `[n]`.
  """
  judge = calibration.CalibratedClassifierCV(
    ensemble.ExtraTreesClassifier(_NUM_TREES, random_state=0, n_jobs=-1),
    method="sigmoid",
    cv=model_selection.StratifiedKFold(5, shuffle=True, random_state=0),
    ensemble=False,
  )
  return judge.fit(_rows(images), labels)


def _rows(images: np.ndarray) -> np.ndarray:
  """Flattens images to rows in [0, 1]."""
  return images.reshape(len(images), -1) / 255.0


def accuracy(judge: Any, images: np.ndarray, labels: np.ndarray) -> float:
  """Share of the images that the judge puts into their class."""
  return float(judge.score(_rows(images), labels))


def verdict(judge: Any, images: np.ndarray) -> Verdict:
  """Judges images, uint8 `[n, height, width, channels]`."""
  probabilities = judge.predict_proba(_rows(images))
  classes = probabilities.argmax(1)
  shares = np.bincount(classes, minlength=10) / len(images)
  return Verdict(
    recognised=float((probabilities.max(1) > SURE).mean()),
    rarest=float(shares.min()),
  )
