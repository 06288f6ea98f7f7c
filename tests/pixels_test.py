"""Conversion of pixel values."""

import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import pixels


@pytest.mark.parametrize("numpy", [np, jnp])
def test_uint8_to_float_and_back(numpy):
  levels = np.arange(256, dtype=np.uint8)
  images = pixels.to_float(numpy.asarray(levels))
  assert images.dtype == np.float32
  np.testing.assert_allclose(images[::51], np.linspace(-1, 1, 6), atol=1e-7)
  np.testing.assert_array_equal(pixels.to_uint8(images), levels)
  wild = pixels.to_uint8(numpy.asarray([-7.0, -1.001, 0.0, 1.001, np.inf]))
  assert wild.dtype == np.uint8
  np.testing.assert_array_equal(wild, [0, 0, 128, 255, 255])
