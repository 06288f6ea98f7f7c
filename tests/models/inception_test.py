import numpy as np
import pytest

from hatebm_jax.models import inception

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("height, width", [(32, 32), (64, 100), (400, 299)])
def test_images_are_resized_as_tensorflow_1_did(height, width):
  images = np.random.default_rng(0).integers(
    0, 256, (2, height, width, 3), np.uint8
  )
  resized = tf.compat.v1.image.resize_bilinear(images, (299, 299))
  expected = (resized.numpy() - 128) / 128
  found = inception.preprocess(images)
  np.testing.assert_allclose(found, expected, atol=2e-5)
