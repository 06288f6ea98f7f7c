"""Recognised digits: how many images a classifier of real digits is sure of.

An image is recognised if the classifier, called the judge, gives its class a
probability above 90 %. The judge is a calibrated forest of extremely randomized
trees that is fitted to the training split. Its trees disagree on images that
are not digits. It is sure of none of 500 images of noise or of digits with
permuted pixels; a calibrated RBF support vector machine is sure of half of
them. The judge is sure of a third of pixelwise means of two random digits, some
of which are digits.
"""

from typing import Any, NamedTuple

import numpy as np

from hatebm_jax.metrics.metric import Figure, Reference, Sample

FIGURES = (
  Figure(
    "recognised",
    "recognised",
    "higher",
    decimals=1,
    percent=True,
    note="Recognised: share of the images of whose digit a classifier is sure.",
  ),
  Figure(
    "rarest",
    "rarest digit",
    "higher",
    decimals=1,
    percent=True,
    note="Rarest digit: smallest share of the images that any digit gets; "
    "10 % at best.",
  ),
)
SURE = 0.9  # An image counts as recognised above this probability.
_NUM_TREES = 300


class Verdict(NamedTuple):
  """What a judge says of a set of images.

  Attributes:
    recognised: Share of the images that the judge is over 90 % sure of.
    rarest: Smallest share of the images that any class gets, whether they are
      recognised or not.
  """

  recognised: float
  rarest: float


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns the judge's verdict if the reference has a judge."""
  if reference.judge is None:
    return {}
  return verdict(reference.judge, sample.images)._asdict()


def fit(images: np.ndarray, labels: np.ndarray) -> Any:
  """Fits a judge.

  Args:
    images: Real images, uint8 `[n, height, width, channels]`.
    labels: Their classes, integers `[n]`.
  """
  from sklearn import calibration, ensemble, model_selection  # A second.

  judge = calibration.CalibratedClassifierCV(
    ensemble.ExtraTreesClassifier(_NUM_TREES, random_state=0),
    method="sigmoid",
    cv=model_selection.StratifiedKFold(5, shuffle=True, random_state=0),
    ensemble=False,
  )
  return judge.fit(_rows(images), labels)


def _rows(images: np.ndarray) -> np.ndarray:
  """Flattens images to rows with values in [0, 1]."""
  return images.reshape(len(images), -1) / 255.0


def accuracy(judge: Any, images: np.ndarray, labels: np.ndarray) -> float:
  """Returns the share of images that the judge puts into their class."""
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
