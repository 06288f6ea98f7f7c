import flax.linen as nn
import numpy as np
import pytest

from hatebm_jax.models import efficientnet


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_is_that_of_flax(size, kernel_size, stride):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
  kernel = rng.normal(size=(kernel_size, kernel_size, 1, 3))
  variables = {"params": {"kernel": kernel.astype(np.float32)}}
  expected = nn.Conv(
    3,
    (kernel_size, kernel_size),
    (stride, stride),
    feature_group_count=3,
    use_bias=False,
  ).apply(variables, x)
  conv = efficientnet.DepthwiseConv(kernel_size, stride)
  np.testing.assert_allclose(conv.apply(variables, x), expected, atol=1e-5)


def test_grey_images_become_colour_images():
  grey = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
  found = efficientnet.preprocess(grey)
  assert found.shape == (2, 224, 224, 3)
  expected = efficientnet.preprocess(np.repeat(grey, 3, 3))
  np.testing.assert_array_equal(found, expected)


def test_the_range_of_the_input():
  images = np.array([0, 127, 255], np.uint8).reshape(3, 1, 1, 1)
  found = efficientnet.preprocess(images)
  expected = np.array([-127 / 128, 0, 1])
  for value, image in zip(expected, found, strict=True):
    np.testing.assert_allclose(image, value, atol=1e-6)
