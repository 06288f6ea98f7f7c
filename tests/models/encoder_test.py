import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import decoder, encoder


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


@pytest.mark.parametrize(
  ("image_size", "width", "channels"), [(16, 32, 1), (32, 256, 3)]
)
def test_sizes_by_hand(image_size, width, channels):
  network = encoder.make(image_size, width)
  x = jax.ShapeDtypeStruct((2, image_size, image_size, channels), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), x)
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == (
    conv(3, channels, width)
    + 7 * conv(3, width, width)
    + conv(1, channels, width)
    + conv(1, width, width)
    + conv(3, width, 1)
  )
  z = jax.eval_shape(network.apply, variables, x)
  assert z.shape == (2, *decoder.latent_shape(image_size, 128))
  assert z.dtype == jnp.float32


def test_projection_by_hand():
  z = np.zeros((2, 4, 4, 1), np.float32)
  z[0, :2, 0, 0] = 3.0, 4.0
  z[1, 0, 0, 0] = 1e-6
  projected = encoder.project(jnp.asarray(z))
  np.testing.assert_allclose(projected[0, :2, 0, 0], (2.4, 3.2), rtol=1e-5)
  # The 1e-6 in the divisor leaves half the radius, sqrt(16).
  np.testing.assert_allclose(projected[1, 0, 0, 0], 2.0, rtol=1e-5)


def test_latents_lie_on_the_sphere():
  network = encoder.make(16, 4)
  x = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
  z, _ = jax.jit(network.init_with_output)(jax.random.key(0), x)
  norms = np.sqrt(np.square(z).sum((1, 2, 3)))
  np.testing.assert_allclose(norms, 8, rtol=1e-4)


@pytest.mark.parametrize(("image_size", "width"), [(64, 32), (32, 0)])
def test_sizes_that_do_not_exist(image_size, width):
  with pytest.raises(errors.ConfigError, match="config"):
    encoder.make(image_size, width)
