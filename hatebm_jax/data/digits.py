"""The source `digits`: scikit-learn's handwritten digits."""

import functools

import ml_collections
import numpy as np
from PIL import Image

from hatebm_jax.data import decode
from hatebm_jax.data.base import Source

_NUM_TEST = 360  # images; 1,437 remain to train
_MAX_LEVEL = 16  # scikit-learn's pixels are from 0 to 16


def open_digits(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens scikit-learn's digits.

  Args:
    config: `config.data`.
    split: 'train' or 'test'.

  Returns:
    The source of 1,437 or 360 images.
  """
  pixels, _ = _load(split)

  def read(indices):
    for i in indices:
      image = Image.fromarray(pixels[i])
      yield decode.fit(image, config.image_size, config.channels, config.crop)

  return Source(f"digits {split}", len(pixels), config.image_size, read)


def digits_labels(split: str) -> np.ndarray:
  """Returns the labels of the source `digits`, in the order of its images.

  Args:
    split: 'train' or 'test'.

  Returns:
    int64 `[1437]` or `[360]`, values 0 to 9.
  """
  return _load(split)[1]


@functools.cache
def _load(split: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns uint8 `[n, 8, 8]` and labels int64 `[n]`, in a fixed order."""
  from sklearn import datasets, model_selection  # The import takes a second.

  bunch = datasets.load_digits()
  pixels = np.round(bunch.images * (255 / _MAX_LEVEL)).astype(np.uint8)
  train_and_test = model_selection.train_test_split(
    np.arange(len(pixels)),
    test_size=_NUM_TEST,
    stratify=bunch.target,
    random_state=0,
  )
  rows = train_and_test[split == "test"]
  return pixels[rows], bunch.target[rows]
