import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import decoder


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


@pytest.mark.parametrize(
  ("image_size", "width", "channels"), [(16, 32, 1), (32, 256, 3)]
)
def test_sizes_by_hand(image_size, width, channels):
  w, c = width, channels
  latent = decoder.latent_shape(image_size, 128)
  assert latent == (image_size // 2, image_size // 2, 1)
  network = decoder.make(image_size, width, channels)
  z = jax.ShapeDtypeStruct((2, *latent), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), z)
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  blocks = conv(3, 1, w) + 7 * conv(3, w, w) + conv(1, 1, w) + conv(1, w, w)
  # The stem has one norm, the three other blocks have two, and one is last.
  norms = 8 * 2 * w
  assert sum(sizes) == blocks + norms + conv(3, w, c)
  x = jax.eval_shape(network.apply, variables, z)
  assert x.shape == (2, image_size, image_size, channels)
  assert x.dtype == jnp.float32


def test_decoder_by_hand():
  # Only the shortcuts are left. The network is then 1x1, 1x1 and up, two
  # identities, norm, ReLU, conv.
  network = decoder.make(16, 2, 1, out_factor=2.0)
  z = jnp.full((1, 8, 8, 1), 0.5)
  variables = jax.jit(network.init)(jax.random.key(0), z)
  params = jax.tree.map(jnp.zeros_like, variables["params"])
  params["block_0"]["shortcut"]["kernel"] = jnp.array([[[[1.0, -1.0]]]])
  params["block_1"]["shortcut"]["kernel"] = jnp.eye(2)[None, None]
  params["norm"]["scale"] = jnp.ones(2)
  params["conv"]["kernel"] = (
    params["conv"]["kernel"].at[1, 1, :, 0].set(jnp.array([0.3, 100.0]))
  )
  images = jax.jit(network.apply)(variables | {"params": params}, z)
  expected = 2 * np.tanh(0.3 * 0.5 / np.sqrt(1.001))
  np.testing.assert_allclose(images, np.full((1, 16, 16, 1), expected), 1e-5)


@pytest.mark.parametrize(("image_size", "width"), [(64, 32), (32, 0)])
def test_sizes_that_do_not_exist(image_size, width):
  with pytest.raises(errors.ConfigError, match="config"):
    decoder.make(image_size, width)
