import numpy as np
import pytest

from hatebm_jax.metrics import resnet10

tf = pytest.importorskip("tensorflow")


def _reference(images):
  """Computes features and logits with TensorFlow's own operations."""
  with np.load(resnet10.WEIGHTS) as file:
    weights = dict(file)

  def conv(x, index, stride=1):
    name = f"conv2d_{index}" if index else "conv2d"
    x = tf.nn.conv2d(x, weights[f"{name}/kernel"], stride, "SAME")
    return x + weights[f"{name}/bias"]

  def norm(x, index):
    name = f"batch_normalization_{index}" if index else "batch_normalization"
    mean, variance, beta, gamma = (
      weights[f"{name}/{kind}"]
      for kind in ("moving_mean", "moving_variance", "beta", "gamma")
    )
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

  x = (images.astype(np.float32) - 128) / 128
  x = tf.nn.relu(norm(conv(x, 0), 0))
  y = norm(conv(tf.nn.relu(norm(conv(x, 1), 1)), 2), 2)
  x = tf.nn.relu(x + y)
  y = norm(conv(tf.nn.relu(norm(conv(x, 3, 2), 3)), 4), 4)
  x = tf.nn.relu(conv(x, 5, 2) + y)
  y = norm(conv(tf.nn.relu(norm(conv(x, 6, 2), 5)), 7), 6)
  x = tf.nn.relu(conv(x, 8, 2) + y)
  x = tf.nn.avg_pool2d(x, 8, 1, "VALID")[:, 0, 0]
  logits = tf.matmul(x, weights["dense/kernel"]) + weights["dense/bias"]
  return x.numpy(), logits.numpy()


def test_features_are_tensorflows():
  images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
  features, logits = _reference(images)
  found = resnet10.features(images)
  assert np.abs(features).max() > 0.1
  np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
  x = (images.astype(np.float32) - 128) / 128
  _, found = resnet10.ResNet10().apply(resnet10.load(), x)
  np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)


def test_other_sizes_are_refused():
  with pytest.raises(ValueError, match=r"\[n, 32, 32, 3\].*\(2, 16, 16, 3\)"):
    resnet10.features(np.zeros((2, 16, 16, 3), np.uint8))
