"""What a metric of sets of images declares, and what it is given.

A metric is a module of this package with two names:

- `FIGURES`: A tuple of `Figure`, one for each number that it measures.
- `figures(sample, reference)`: A function that takes a `Sample` and a
  `Reference` and returns the values by the names of the figures. It leaves out
  what cannot be measured, for example because the sample is too small.

It may also have `PROTOCOL`, a dictionary of its settings. These are recorded in
the protocol of evaluation.json.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hatebm_jax.metrics.moments import Moments

_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


class Figure(NamedTuple):
  """How one measured number is named and shown.

  Attributes:
    name: Key in evaluation.json.
    title: Title of its column or row. An empty title stands for the name of the
      network in whose features it is measured.
    better: `higher`, `lower`, or an empty string where neither is better.
    decimals: Number of decimals that are shown.
    decimals_in: Number of decimals by the name of the network, for networks
      whose features have another scale.
    percent: Whether the number is a share that is shown in percent.
    note: Sentence that explains the number below a table; it may be empty.
  """

  name: str
  title: str
  better: str = ""
  decimals: int = 3
  decimals_in: Mapping[str, int] = {}
  percent: bool = False
  note: str = ""

  def heading(self, network: str = "") -> str:
    """Returns the title with an arrow in the better direction."""
    unit = ", %" if self.percent else ""
    return f"{self.title or network}{_ARROWS[self.better]}{unit}"

  def text(self, value: float, network: str = "") -> str:
    """Returns a value as text, rounded to the figure's decimals."""
    decimals = self.decimals_in.get(network, self.decimals)
    return f"{value:.{decimals}{'%' if self.percent else 'f'}}"


class Sample(NamedTuple):
  """What a metric sees of the set of images that is measured.

  Attributes:
    images: The images, uint8 `[n, height, width, channels]`. Images beyond the
      first 64 MiB are left out.
    moments: Moments of the features of all images.
    features: Features of at most 10,000 images in random order, `[m, dim]`.
    class_sums: Sums over the logits of all images, see
      `inception_score.Sums`.
  """

  images: np.ndarray
  moments: Moments
  features: np.ndarray
  class_sums: Any


class Reference(NamedTuple):
  """What a metric sees of the images that a sample is measured against.

  Attributes:
    network: Name of the network whose features these are, such as `FID`.
    moments: Moments of the features of all reference images.
    features: Features of at most 10,000 images in random order, `[m, dim]`, or
      None if only moments are known because they were read from a file.
    judge: Classifier that `recognised_digits.fit` returns, or None if the
      reference images have no labels.
  """

  network: str
  moments: Moments
  features: np.ndarray | None = None
  judge: Any = None
