import numpy as np
import tiny

from hatebm_jax import data
from hatebm_jax.metrics import digits_network, frechet, moments


def _digits(split, size=16):
  config = tiny.config()
  with config.unlocked():
    config.data.image_size = size
  return data.load_all(data.open_source(config.data, split))


def _distance(images, reference):
  one, other = (
    moments.compute(digits_network.features(x)) for x in (images, reference)
  )
  return frechet.distance(
    one.mean, one.covariance, other.mean, other.covariance
  )


def test_recognises_held_out_digits():
  images = digits_network.to_input(_digits("test"))
  _, logits = digits_network.DigitsNetwork().apply(
    digits_network.load(), images
  )
  right = np.asarray(logits).argmax(1) == data.digits_labels("test")
  assert right.sum() >= 359  # of 360; where it was trained it was 359.


def test_features_do_not_depend_on_the_batch():
  images = _digits("train")[:600]
  found = digits_network.features(images)
  assert found.shape == (600, digits_network.NUM_FEATURES)
  alone = digits_network.features(images[590:])
  np.testing.assert_allclose(found[590:], alone, rtol=1e-4, atol=1e-4)


def test_distance_grows_with_noise():
  train, test = _digits("train"), _digits("test")
  noise = np.random.default_rng(0).normal(size=test.shape) * 255
  distances = [
    _distance(np.clip(test + scale * noise, 0, 255).astype(np.uint8), train)
    for scale in (0, 0.1, 0.3, 1)
  ]
  assert distances[0] < 10
  assert distances == sorted(distances)
  assert distances[-1] > 200


def test_distance_sees_a_missing_digit():
  train, test = _digits("train"), _digits("test")
  without = test[data.digits_labels("test") != 4]
  assert _distance(without, train) > 2 * _distance(test, train)


def test_other_sizes_are_resized():
  assert _distance(_digits("test", 32), _digits("train")) < 20
