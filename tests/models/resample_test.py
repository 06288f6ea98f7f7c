import jax.numpy as jnp
import numpy as np

from hatebm_jax.models import resample


def test_avg_pool_by_hand():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(
    resample.avg_pool(x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]]
  )


def test_upsample_by_hand():
  x = jnp.array([[0.0, 4.0], [8.0, 16.0]]).reshape(1, 2, 2, 1)
  np.testing.assert_array_equal(
    resample.upsample(x)[0, :, :, 0],
    [[0, 1, 3, 4], [2, 3.25, 5.75, 7], [6, 7.75, 11.25, 13], [8, 10, 14, 16]],
  )
