import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import hat


def abstract_params(image_size, width, channels=3):
  network = hat.make(image_size, width)
  x = jax.ShapeDtypeStruct((2, image_size, image_size, channels), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), x)["params"]


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


def count(widths, shortcuts, channels=3):
  """Parameters by hand: two 3x3 convolutions a block, shortcuts, the head."""
  total, inputs = widths[-1], channels
  for features, shortcut in zip(widths, shortcuts, strict=True):
    total += conv(3, inputs, features) + conv(3, features, features)
    total += conv(1, inputs, features) if shortcut else 0
    inputs = features
  return total


@pytest.mark.parametrize(
  ("image_size", "width", "widths", "shortcuts"),
  [
    (16, 32, (32,) * 4, (1, 1, 0, 0)),
    (32, 256, (256,) * 4, (1, 1, 0, 0)),
    (64, 1024, (64, 128, 256, 512, 1024), (1,) * 5),
    (128, 1024, (64, 128, 256, 512, 1024, 1024), (1, 1, 1, 1, 1, 0)),
    (128, 2048, (128, 256, 512, 1024, 2048, 2048), (1, 1, 1, 1, 1, 0)),
  ],
)
def test_parameters_of_the_paper(image_size, width, widths, shortcuts):
  params = abstract_params(image_size, width)
  sizes = [leaf.size for leaf in jax.tree.leaves(params)]
  assert sum(sizes) == count(widths, shortcuts)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype("float32")
  }


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
  assert abstract_params(16, 8, channels)["block_0"]["conv_0"][
    "kernel"
  ].shape == (3, 3, channels, 8)


@pytest.mark.parametrize("conv_form", ["literal", "packed", "dense"])
def test_the_energy_is_a_weighted_sum_of_the_last_features(conv_form):
  network = hat.make(32, 8).copy(conv_form=conv_form)
  x = jax.random.uniform(jax.random.key(1), (3, 32, 32, 3), minval=-1)
  params = network.init(jax.random.key(0), x)["params"]
  found = hat.features(network, params, x)
  assert found.shape == (3, 4 * 8) and found.dtype == jnp.float32
  expected = found[:, -8:] @ params["head"]["kernel"][:, 0]
  energies = network.apply({"params": params}, x)
  np.testing.assert_allclose(expected, energies, rtol=1e-5, atol=1e-6)
  # Those of the first block, written out with its parameters.
  literal = hat.HatBlock(8, down=True, stem=True, conv_form="literal")
  first = literal.apply({"params": params["block_0"]}, x)
  expected = np.maximum(first, 0).mean((1, 2))
  np.testing.assert_allclose(found[:, :8], expected, rtol=1e-4, atol=1e-6)


def test_initialisation_is_glorot_uniform_with_zero_bias():
  network = hat.make(16, 16)
  params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))[
    "params"
  ]
  kernel = np.asarray(params["block_1"]["conv_0"]["kernel"])
  bound = np.sqrt(6 / (9 * 16 + 9 * 16))
  assert np.abs(kernel).max() <= bound
  np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)
  assert not np.any(params["block_1"]["conv_0"]["bias"])
  head = params["head"]
  assert set(head) == {"kernel"} and head["kernel"].shape == (16, 1)


def test_energy_is_the_mean_over_the_last_pixels():
  # Only shortcuts are left. H is then pool, 1x1, pool (its 1x1 is the
  # identity), identities, ReLU, mean, head.
  network = hat.make(16, 2)
  x = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
  params = jax.tree.map(
    jnp.zeros_like, jax.jit(network.init)(jax.random.key(0), x)["params"]
  )
  params["block_0"]["shortcut"]["kernel"] = jnp.array([[[[2.0, -1.0]]]])
  params["block_1"]["shortcut"]["kernel"] = jnp.eye(2)[None, None]
  params["head"]["kernel"] = jnp.array([[1.0], [10.0]])
  pooled = np.asarray(x).reshape(3, 4, 4, 4, 4).mean((2, 4))
  expected = (np.maximum(2 * pooled, 0) + 10 * np.maximum(-pooled, 0)).mean(
    (1, 2)
  )
  energy = jax.jit(network.apply)({"params": params}, x)
  np.testing.assert_allclose(energy, expected, rtol=1e-5)


def test_bfloat16_keeps_energies_and_parameters_in_float32():
  x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
  single, half = hat.make(16, 16), hat.make(16, 16, jnp.bfloat16)
  variables = jax.jit(half.init)(jax.random.key(0), x)
  energies = [jax.jit(net.apply)(variables, x) for net in (single, half)]
  assert energies[1].dtype == jnp.float32
  assert variables["params"]["head"]["kernel"].dtype == jnp.float32
  # bfloat16 has 8 bits: the error is a few 2^-8 of the energies' scale.
  error = np.abs(energies[0] - energies[1]).max()
  assert 0 < error < 0.03 * np.abs(energies[0]).max()


@pytest.mark.parametrize(
  ("image_size", "width", "field"),
  [
    (48, 32, "data.image_size=48"),
    (64, 24, "model.width=24"),
    (32, 0, "model.width=0"),
  ],
)
def test_sizes_that_do_not_exist(image_size, width, field):
  with pytest.raises(errors.ConfigError, match=f"config.{field}: "):
    hat.make(image_size, width)
