"""scikit-learn's digits as a source of images."""

import numpy as np
import tiny
from sklearn import datasets, model_selection

from hatebm_jax import data


def test_digits_split_values_and_labels():
  splits = {}
  for split, count in (("train", 1437), ("test", 360)):
    source = data.open_source(tiny.data_config("digits", channels=1), split)
    images, labels = data.load_all(source), data.digits_labels(split)
    assert source.num_images == count
    assert images.shape == (count, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.shape == (count,)
    share = np.bincount(labels) / count
    np.testing.assert_allclose(share, 0.1, atol=0.004)
    splits[split] = (images, labels)
  images, labels = map(np.concatenate, zip(*splits.values(), strict=True))
  digits = datasets.load_digits()

  def in_order(pixels, targets):
    rows = np.c_[targets, pixels.reshape(len(pixels), -1)]
    return rows[np.lexsort(rows.T)]

  # Levels 0, 8 and 16 become 0, 128 (127.5 is rounded to even) and 255.
  expected = np.round(digits.images * 15.9375)
  np.testing.assert_array_equal(
    in_order(images, labels), in_order(expected, digits.target)
  )
  assert images.min() == 0
  assert images.max() == 255


def test_digits_are_enlarged_bilinearly():
  small = data.load_all(
    data.open_source(tiny.data_config("digits", channels=1))
  )
  source = data.open_source(tiny.data_config("digits", image_size=16))
  large = source.images([3, 0])
  assert large.shape == (2, 16, 16, 3)
  np.testing.assert_array_equal(large[..., 0], large[..., 2])
  image = small[3, ..., 0].astype(float)
  # Pixels have half-pixel centres: a corner keeps its value, and the new pixels
  # (2, 1) and (2, 2) lie 3/4 and 1/4 of the way between old pixels.
  assert large[0, 0, 0, 0] == image[0, 0]
  along_y = 0.25 * image[0] + 0.75 * image[1]
  expected = [0.75 * along_y[0] + 0.25 * along_y[1]]
  expected += [0.25 * along_y[0] + 0.75 * along_y[1]]
  np.testing.assert_allclose(large[0, 2, 1:3, 0], expected, atol=1.01)


def test_labels_are_known_for_digits_alone():
  found = data.labels(tiny.data_config("digits", channels=1), "test")
  np.testing.assert_array_equal(found, data.digits_labels("test"))
  assert data.labels(tiny.data_config("folder:images"), "test") is None


def test_the_splits_are_those_of_scikit_learn():
  bunch = datasets.load_digits()
  rows = model_selection.train_test_split(
    np.arange(len(bunch.target)),
    test_size=360,
    stratify=bunch.target,
    random_state=0,
  )
  for split, expected in zip(("train", "test"), rows, strict=True):
    source = data.open_source(tiny.data_config("digits", channels=1), split)
    pixels = np.round(bunch.images[expected] * 15.9375)[..., None]
    np.testing.assert_array_equal(data.load_all(source), pixels)
    labels = data.digits_labels(split)
    np.testing.assert_array_equal(labels, bunch.target[expected])
    assert labels.dtype == bunch.target.dtype
