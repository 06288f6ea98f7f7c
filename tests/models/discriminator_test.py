import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import errors
from hatebm_jax.models import conv_ops, discriminator


def conv(size, inputs, outputs):
  return size * size * inputs * outputs + outputs


def count(widths, shortcuts, channels=3):
  """Parameters by hand: two 3x3 convolutions a block, shortcuts, the head."""
  total, inputs = widths[-1] + 1, channels
  for i, (features, shortcut) in enumerate(zip(widths, shortcuts, strict=True)):
    hidden = features if i == 0 else inputs
    total += conv(3, inputs, hidden) + conv(3, hidden, features)
    total += conv(1, inputs, features) if shortcut else 0
    inputs = features
  return total


@pytest.mark.parametrize(
  ("image_size", "width", "widths", "shortcuts"),
  [
    (16, 32, (32,) * 4, (1, 1, 0, 0)),
    (32, 128, (128,) * 4, (1, 1, 0, 0)),
    (64, 1024, (64, 128, 256, 512, 1024), (1,) * 5),
    (128, 1024, (64, 128, 256, 512, 1024, 1024), (1, 1, 1, 1, 1, 0)),
  ],
)
def test_parameters_of_torch_mimicry(image_size, width, widths, shortcuts):
  network = discriminator.make(image_size, width)
  x = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), x)
  leaves = jax.tree.leaves(variables["params"])
  assert sum(leaf.size for leaf in leaves) == count(widths, shortcuts)
  kernels = flax.traverse_util.flatten_dict(variables["params"])
  spectral = flax.traverse_util.flatten_dict(variables["spectral"])
  # Every layer has u and v.
  assert spectral.keys() == {
    (*path[:-1], name) for path in kernels for name in "uv"
  }
  for path in spectral:
    if path[-1] == "v":
      kernel = kernels[(*path[:-1], "kernel")]
      assert spectral[path].shape == kernel.shape[:-1]
      assert spectral[(*path[:-1], "u")].shape == kernel.shape[-1:]
  logits = jax.eval_shape(network.apply, variables, x)
  assert (logits.shape, logits.dtype) == ((2,), jnp.float32)


LAYERS = {
  "conv3x3": conv_ops.form("auto").conv3x3,
  "down": conv_ops.form("auto").conv3x3_down,
  "dense": None,
}


def make_layer(name):
  """Returns a layer with random variables, inputs, and W as PyTorch has it."""
  op = LAYERS[name]
  window = () if op is None else (op.window, op.window)
  layer = discriminator.SpectralLayer(5, op)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *(4 for _ in window), 3)), jnp.float32)
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  return layer, variables, x, torch_matrix(variables["params"]["kernel"])


def torch_matrix(kernel):
  """W: the kernel as [out, in, height, width], reshaped to [out, -1]."""
  kernel = np.asarray(kernel, np.float64)
  order = (*range(kernel.ndim)[:-3:-1], *range(kernel.ndim - 2))
  return kernel.transpose(order).reshape(kernel.shape[-1], -1)


def torch_vector(v):
  return np.moveaxis(np.asarray(v, np.float64), -1, 0).ravel()


@pytest.mark.parametrize("name", LAYERS)
def test_one_power_iteration_by_hand(name):
  layer, variables, x, matrix = make_layer(name)
  apply = jax.jit(layer.apply, static_argnames=("train", "mutable"))
  y, updated = apply(variables, x, train=True, mutable=("spectral",))
  u = np.asarray(variables["spectral"]["u"], np.float64)
  v = matrix.T @ u
  v /= np.linalg.norm(v)
  u = matrix @ v
  sigma = np.linalg.norm(u)  # u^T W v at u = W v / ||W v||.
  u /= sigma
  np.testing.assert_allclose(updated["spectral"]["u"], u, atol=1e-6)
  np.testing.assert_allclose(
    torch_vector(updated["spectral"]["v"]), v, atol=1e-6
  )
  kernel = variables["params"]["kernel"] / sigma
  apply_op = jnp.dot if layer.op is None else layer.op.apply
  expected = apply_op(x, kernel.astype(jnp.float32))
  np.testing.assert_allclose(y, expected, atol=1e-5)
  # Evaluation uses the stored vectors and updates nothing.
  still, spectral = apply(variables | updated, x, mutable=("spectral",))
  np.testing.assert_allclose(still, expected, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, spectral, updated)


@pytest.mark.parametrize("name", LAYERS)
def test_sigma_is_the_largest_singular_value(name):
  layer, variables, x, matrix = make_layer(name)

  @jax.jit
  def iterate(variables):
    def body(_, spectral):
      variables["spectral"] = spectral
      _, spectral = layer.apply(variables, x, train=True, mutable=["spectral"])
      return spectral["spectral"]

    return jax.lax.fori_loop(0, 200, body, variables["spectral"])

  spectral = iterate(dict(variables))
  u, v = np.asarray(spectral["u"]), torch_vector(spectral["v"])
  largest = np.linalg.svd(matrix, compute_uv=False)[0]
  np.testing.assert_allclose(u @ matrix @ v, largest, rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_gradient_goes_through_sigma_with_u_and_v_constant(train):
  # If G is the gradient at W / sigma, it is (G - <G, W / sigma> u v^T) / sigma.
  layer, variables, x, matrix = make_layer("dense")
  dy = jax.random.normal(jax.random.key(1), (2, 5))

  def loss(params):
    y, updated = layer.apply(
      variables | {"params": params}, x, train=train, mutable=["spectral"]
    )
    return jnp.sum(y * dy), updated

  gradient, updated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
  u, v = (np.asarray(updated["spectral"][n], np.float64) for n in "uv")
  sigma = u @ matrix @ v
  direct = np.asarray(dy, np.float64).T @ np.asarray(x, np.float64)
  expected = direct - np.sum(direct * matrix) / sigma * np.outer(u, v)
  np.testing.assert_allclose(
    torch_matrix(gradient["kernel"]), expected / sigma, atol=1e-5
  )


def test_initial_sigma_is_positive():
  # v lies along W u. Otherwise an untrained network could divide by zero.
  _, variables, _, matrix = make_layer("conv3x3")
  u, v = variables["spectral"]["u"], torch_vector(variables["spectral"]["v"])
  np.testing.assert_allclose(
    u @ matrix @ v, np.linalg.norm(matrix.T @ u), rtol=1e-5
  )


def test_training_must_be_able_to_store_the_vectors():
  layer, variables, x, _ = make_layer("dense")
  with pytest.raises(flax.errors.ModifyScopeVariableError):
    layer.apply(variables, x, train=True)


def test_discriminator_by_hand():
  # The network has one block without 3x3 convolutions: pool, 1x1, ReLU, SUM
  # over the pixels, dense with bias. Each kernel has one singular value that is
  # not zero.
  network = discriminator.Discriminator(widths=(2,), num_downs=1)
  x = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
  variables = jax.jit(network.init)(jax.random.key(0), x)
  params = jax.tree.map(jnp.zeros_like, variables["params"])
  block = params["block_0"]
  block["shortcut"]["kernel"] = jnp.array([[[[3.0, -4.0]]]])  # sigma 5
  block["shortcut"]["bias"] = jnp.array([0.25, 0.5])
  # Nothing of conv_1 reaches the output, because its input is zero.
  block["conv_0"]["kernel"] = variables["params"]["block_0"]["conv_0"]["kernel"]
  block["conv_0"]["bias"] = jnp.full(2, -1e3)
  block["conv_1"]["kernel"] = variables["params"]["block_0"]["conv_1"]["kernel"]
  params["head"]["kernel"] = jnp.array([[6.0], [8.0]])  # sigma 10
  params["head"]["bias"] = jnp.array([7.0])
  logits, _ = jax.jit(
    functools.partial(network.apply, train=True, mutable=["spectral"])
  )(variables | {"params": params}, x)
  pooled = np.asarray(x).reshape(3, 2, 2, 2, 2).mean((2, 4))
  features = [
    np.maximum(0.6 * pooled + 0.25, 0).sum((1, 2)),
    np.maximum(-0.8 * pooled + 0.5, 0).sum((1, 2)),
  ]
  expected = 0.6 * features[0] + 0.8 * features[1] + 7
  np.testing.assert_allclose(logits, expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["packed", "strided"])
def test_all_forms_have_the_gradients_of_the_literal_one(form):
  network = discriminator.Discriminator(widths=(3, 4), num_downs=1)
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
  variables = jax.jit(network.init)(jax.random.key(0), x)

  def gradients(params, x, form):
    return jax.grad(
      lambda params, x: (
        network.clone(conv_form=form)
        .apply(
          variables | {"params": params}, x, train=True, mutable=["spectral"]
        )[0]
        .sum()
      ),
      (0, 1),
    )(params, x)

  found, literal = (
    jax.jit(gradients, static_argnums=2)(variables["params"], x, name)
    for name in (form, "literal")
  )
  pairs = map(jax.tree.leaves, (found, literal))
  for actual, expected in zip(*pairs, strict=True):
    np.testing.assert_allclose(
      actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
  ("image_size", "width", "field"),
  [
    (48, 32, "data.image_size=48"),
    (64, 24, "sngan.discriminator_width=24"),
    (32, 0, "sngan.discriminator_width=0"),
  ],
)
def test_sizes_that_do_not_exist(image_size, width, field):
  with pytest.raises(errors.ConfigError, match=f"config.{field}: "):
    discriminator.make(image_size, width)
