import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import generator


def abstract(image_size, width, channels=3):
  network = generator.make(image_size, width, channels)
  z = jax.ShapeDtypeStruct((2, 128), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), z)
  return variables, jax.eval_shape(network.apply, variables, z)


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


def count(base, widths, channels=3):
  """Parameters by hand: dense, blocks (two norms, three convs), norm, conv."""
  total, inputs = 128 * 16 * base + 16 * base, base
  for features in widths:
    total += 2 * inputs + 2 * features
    total += conv(3, inputs, features) + conv(3, features, features)
    total += conv(1, inputs, features)
    inputs = features
  return total + 2 * inputs + conv(3, inputs, channels)


@pytest.mark.parametrize(
  ("image_size", "width", "widths"),
  [
    (16, 32, (32, 32)),
    (32, 256, (256, 256, 256)),
    (64, 1024, (512, 256, 128, 64)),
    (128, 1024, (1024, 512, 256, 128, 64)),
    (128, 2048, (2048, 1024, 512, 256, 128)),
  ],
)
def test_parameters_and_images_of_the_paper(image_size, width, widths):
  variables, images = abstract(image_size, width)
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == count(width, widths)
  assert images.shape == (2, image_size, image_size, 3)
  assert images.dtype == jnp.float32


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels):
  assert abstract(16, 8, channels)[1].shape == (2, 16, 16, channels)


def test_dense_layer_is_laid_out_channel_major():
  # Only the shortcuts of the blocks are left: the image is the 4x4 up-sampled.
  network = generator.make(16, 2, channels=1, out_factor=2.0)
  z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  variables = jax.jit(network.init)(jax.random.key(0), z)
  params = jax.tree.map(jnp.zeros_like, variables["params"])
  for block in ("block_0", "block_1"):
    params[block]["shortcut"]["kernel"] = jnp.eye(2)[None, None]
  params["norm"]["scale"] = jnp.ones(2)
  params["conv"]["kernel"] = (
    params["conv"]["kernel"].at[1, 1, :, 0].set(jnp.array([1.0, 100.0]))
  )
  # Output i of the dense layer is channel i // 16, row i // 4 % 4 and column
  # i % 4.
  kernel = np.zeros((2, 32), np.float32)
  kernel[0, 5] = 0.1  # channel 0, row 1, column 1
  kernel[1, 16 + 14] = 0.001  # channel 1, row 3, column 2
  params["dense"]["kernel"] = jnp.asarray(kernel)
  images = jax.jit(network.apply)(
    {"params": params, "batch_stats": variables["batch_stats"]}, z
  )
  peaks = [
    np.unravel_index(np.argmax(image), (16, 16)) for image in images[..., 0]
  ]
  assert [(row // 4, column // 4) for row, column in peaks] == [(1, 1), (3, 2)]
  # Each bilinear up keeps 3/4 of a lone pixel along each axis. Statistics
  # (0, 1) and epsilon 1e-3 scale by 1/sqrt(1.001).
  peak = 0.1 * 0.75**2 / np.sqrt(1.001)
  np.testing.assert_allclose(images[0].max(), 2 * np.tanh(peak), rtol=1e-4)


def test_out_factor_bounds_the_images():
  network = generator.make(16, 8, 3, out_factor=2.0)
  z = 1e3 * jax.random.normal(jax.random.key(1), (4, 8))
  images = jax.jit(network.init_with_output)(jax.random.key(0), z)[0]
  assert np.abs(images).max() == pytest.approx(2.0, abs=1e-3)


def test_statistics_move_only_in_training():
  network = generator.make(16, 4, 1)
  z = jax.random.normal(jax.random.key(1), (8, 4))
  variables = jax.jit(network.init)(jax.random.key(0), z)
  apply = jax.jit(network.apply, static_argnames=("train", "mutable"))
  _, still = apply(variables, z, mutable=("batch_stats",))
  _, moved = apply(variables, z, train=True, mutable=("batch_stats",))
  before = variables["batch_stats"]["norm"]["mean"]
  np.testing.assert_array_equal(still["batch_stats"]["norm"]["mean"], before)
  assert np.any(moved["batch_stats"]["norm"]["mean"] != before)


@pytest.mark.parametrize(("image_size", "width"), [(48, 32), (64, 24), (32, 0)])
def test_sizes_that_do_not_exist(image_size, width):
  with pytest.raises(errors.ConfigError, match="config"):
    generator.make(image_size, width)
