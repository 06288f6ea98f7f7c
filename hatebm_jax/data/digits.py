"""The source `digits`: scikit-learn's handwritten digits."""

import functools
import gzip
import importlib.util
import pathlib

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
  # The file is read as scikit-learn reads it. To import scikit-learn would take
  # a second, for which the start of every run of digits would wait.
  (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
  path = pathlib.Path(package, "datasets", "data", "digits.csv.gz")
  with gzip.open(path, "rt") as file:
    table = np.loadtxt(file, delimiter=",")
  levels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
  pixels = np.round(levels * (255 / _MAX_LEVEL)).astype(np.uint8)
  rows = _split_rows(labels)[split == "test"]
  return pixels[rows], labels[rows]


def _split_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of the splits train and test.

  They are those of scikit-learn's `train_test_split`, stratified, with the
  random state 0: each class has the same share of both splits.
  """
  rng = np.random.RandomState(0)
  counts = np.bincount(labels)
  num_train = _shares(counts, len(labels) - _NUM_TEST, rng)
  num_test = _shares(counts - num_train, _NUM_TEST, rng)
  train, test = [], []
  for i, count in enumerate(counts):
    rows = np.flatnonzero(labels == i)[rng.permutation(count)]
    train.extend(rows[: num_train[i]])
    test.extend(rows[num_train[i] :][: num_test[i]])
  return rng.permutation(train), rng.permutation(test)


def _shares(
  counts: np.ndarray, num_draws: int, rng: np.random.RandomState
) -> np.ndarray:
  """Returns how many of each class to draw; a draw decides between equals."""
  exact = counts / counts.sum() * num_draws
  shares = np.floor(exact).astype(int)
  rests = exact - shares
  for rest in np.unique(rests)[::-1]:
    missing = num_draws - shares.sum()
    if not missing:
      break
    (classes,) = np.where(rests == rest)
    size = min(len(classes), missing)
    shares[rng.choice(classes, size, replace=False)] += 1
  return shares
