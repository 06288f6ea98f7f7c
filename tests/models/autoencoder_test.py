import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import autoencoder


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


def abstract(network, shape):
  x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), x)
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  return sum(sizes), jax.eval_shape(network.apply, variables, x)


@pytest.mark.parametrize(
  ("image_size", "width", "channels"), [(16, 32, 1), (32, 256, 3)]
)
def test_sizes_by_hand(image_size, width, channels):
  w, c = width, channels
  latent = autoencoder.latent_shape(image_size)
  assert latent == (image_size // 2, image_size // 2, 1)
  blocks = 7 * conv(3, w, w)
  shortcuts = lambda inputs: conv(1, inputs, w) + conv(1, w, w)

  encoder = autoencoder.make_encoder(image_size, width)
  count, z = abstract(encoder, (image_size, image_size, channels))
  assert count == conv(3, c, w) + blocks + shortcuts(c) + conv(3, w, 1)
  assert z.shape == (2, *latent)

  decoder = autoencoder.make_decoder(image_size, width, channels)
  count, x = abstract(decoder, latent)
  norms = 8 * 2 * w  # One in the stem, two in each other block, the last.
  assert count == (
    conv(3, 1, w) + blocks + shortcuts(1) + norms + conv(3, w, c)
  )
  assert x.shape == (2, image_size, image_size, channels)
  assert (z.dtype, x.dtype) == (jnp.float32, jnp.float32)


def test_projection_by_hand():
  z = np.zeros((2, 4, 4, 1), np.float32)
  z[0, :2, 0, 0] = 3.0, 4.0
  z[1, 0, 0, 0] = 1e-6
  projected = autoencoder.project(jnp.asarray(z))
  np.testing.assert_allclose(projected[0, :2, 0, 0], (2.4, 3.2), rtol=1e-5)
  # The 1e-6 in the divisor: half the radius, sqrt(16).
  np.testing.assert_allclose(projected[1, 0, 0, 0], 2.0, rtol=1e-5)


def test_latents_lie_on_the_sphere():
  encoder = autoencoder.make_encoder(16, 4)
  x = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
  z, _ = jax.jit(encoder.init_with_output)(jax.random.key(0), x)
  norms = np.sqrt(np.square(z).sum((1, 2, 3)))
  np.testing.assert_allclose(norms, 8, rtol=1e-4)


def test_decoder_by_hand():
  # Only the shortcuts are left: 1x1, up and 1x1, identities, norm, ReLU, conv.
  decoder = autoencoder.make_decoder(16, 2, 1, out_factor=2.0)
  z = jnp.full((1, 8, 8, 1), 0.5)
  variables = jax.jit(decoder.init)(jax.random.key(0), z)
  params = jax.tree.map(jnp.zeros_like, variables["params"])
  params["block_0"]["shortcut"]["kernel"] = jnp.array([[[[1.0, -1.0]]]])
  params["block_1"]["shortcut"]["kernel"] = jnp.eye(2)[None, None]
  params["norm"]["scale"] = jnp.ones(2)
  params["conv"]["kernel"] = (
    params["conv"]["kernel"].at[1, 1, :, 0].set(jnp.array([0.3, 100.0]))
  )
  images = jax.jit(decoder.apply)(variables | {"params": params}, z)
  expected = 2 * np.tanh(0.3 * 0.5 / np.sqrt(1.001))
  np.testing.assert_allclose(images, np.full((1, 16, 16, 1), expected), 1e-5)


@pytest.mark.parametrize(
  "make", [autoencoder.make_decoder, autoencoder.make_encoder]
)
@pytest.mark.parametrize(("image_size", "width"), [(64, 32), (32, 0)])
def test_sizes_that_do_not_exist(make, image_size, width):
  with pytest.raises(errors.ConfigError, match="config"):
    make(image_size, width)
