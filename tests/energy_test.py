import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import energy


def hat_fn(x):
  return (x**3).sum((1, 2, 3))


def generator_fn(z):
  return 2 * z[:, None, :, None]


Z = jnp.array([[1.0, 2.0], [0.0, -1.0]])
Y = jnp.array([[[[0.5], [1.0]]], [[[1.0], [1.0]]]])


def test_ddls_energy_by_hand():
  # D(2 z) = 8 (z_0^3 + z_1^3), and ||z||^2 / 2 is 2.5 and 0.5.
  energy_fn = energy.ddls(hat_fn, generator_fn)
  np.testing.assert_allclose(energy_fn(Z), [2.5 - 72, 0.5 + 8])


def test_image_gradient_by_hand():
  values, gradient = energy.image_gradient(hat_fn, Y)
  np.testing.assert_allclose(values, [1.125, 2.0])
  np.testing.assert_allclose(gradient, 3 * np.square(Y))


def test_image_gradient_does_not_mix_images():
  gradient = jax.jacobian(lambda y: energy.image_gradient(hat_fn, y)[0])(Y)
  assert not np.any(gradient[0, 1]) and not np.any(gradient[1, 0])
