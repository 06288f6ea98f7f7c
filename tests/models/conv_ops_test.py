"""Checks the forms of convolution against the literal one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hatebm_jax import models
from hatebm_jax.models import conv_ops, hat

OPS = [
  name
  for name, op in conv_ops.FORMS["literal"]._asdict().items()
  if isinstance(op, conv_ops.Op)
]
OTHERS = [form for form in conv_ops.FORMS if form != "literal"]
SHAPES = [
  # batch, height, width, in, out
  (2, 4, 4, 1, 8),
  (3, 8, 8, 3, 16),
  (4, 8, 8, 4, 6),
  (2, 16, 16, 16, 3),
  (2, 4, 8, 5, 7),
  (1, 16, 4, 8, 8),
  (1, 2, 2, 4, 4),
  # The packed form computes narrow convolutions in its own way. A batch that
  # is not even has two parts of different sizes.
  (3, 4, 8, 24, 20),
  (18, 4, 4, 17, 17),
]


def _op(form, name):
  """Returns an operation as a function of an image and the layer's kernel."""
  op = getattr(conv_ops.FORMS[form], name)
  return lambda x, kernel: op.apply(x, op.prepare(kernel))


def _inputs(name, shape, dtype=np.float32):
  batch, height, width, channels_in, channels_out = shape
  rng = np.random.RandomState(sum(shape))
  x = rng.randn(batch, height, width, channels_in)
  window = getattr(conv_ops.FORMS["literal"], name).window
  kernel = rng.randn(window, window, channels_in, channels_out) / window
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def _value_and_gradients(op, *inputs):
  y, pull = jax.vjp(op, *inputs)
  dy = jnp.asarray(np.random.RandomState(1).randn(*y.shape), y.dtype)
  return (y, *pull(dy))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", OTHERS)
def test_all_forms_equal_the_literal_one(form, name, shape):
  fast, literal = _op(form, name), _op("literal", name)
  x, kernel = _inputs(name, shape)
  actual = jax.jit(lambda *a: _value_and_gradients(fast, *a))(x, kernel)
  expected = jax.jit(lambda *a: _value_and_gradients(literal, *a))(x, kernel)
  for got, want in zip(actual, expected, strict=True):
    assert got.shape == want.shape
    scale = np.abs(want).max()
    np.testing.assert_allclose(got / scale, want / scale, atol=2e-6)


@pytest.mark.parametrize(
  "shape",
  [(16, 4, 4, 2, 3), (1, 64, 64, 1, 2), (1, 64, 64, 256, 1)],
  ids=str,
)
def test_the_gradient_of_a_dense_pool_for_many_images_or_pixels(shape):
  # With few of both it has another gradient, which the test above sees.
  test_all_forms_equal_the_literal_one("dense", "conv3x3_down", shape)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (3, 4, 8, 1)], ids=str)
@pytest.mark.parametrize("form", OTHERS)
def test_the_first_block_equals_the_literal_one(form, shape):
  x = jax.random.normal(jax.random.key(0), shape)

  def results(form):
    block = hat.HatBlock(5, down=True, stem=True, conv_form=form)
    # The biases matter at the edges.
    params = jax.tree.map(
      lambda leaf: leaf + 0.1, block.init(jax.random.key(1), x)
    )
    return jax.jit(lambda *a: _value_and_gradients(block.apply, *a))(params, x)

  found, expected = results(form), results("literal")
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
  for got, want in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    scale = np.abs(want).max()
    np.testing.assert_allclose(got / scale, want / scale, atol=2e-6)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", OTHERS)
def test_gradient_inside_a_loop(form, name):
  fast, literal = _op(form, name), _op("literal", name)
  x, kernel = _inputs(name, (2, 8, 8, 4, 4))

  def descend(op):
    gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(op(x, kernel))))
    step = lambda _, x: x - 0.1 * gradient(x)
    return jax.jit(lambda x: jax.lax.fori_loop(0, 5, step, x))(x)

  np.testing.assert_allclose(descend(fast), descend(literal), atol=1e-5)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", OTHERS)
def test_gradients_inside_shard_map(form, name):
  fast, literal = _op(form, name), _op("literal", name)
  x, kernel = _inputs(name, (2, 8, 8, 4, 4))
  mesh = jax.make_mesh(
    (min(2, jax.device_count()),),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
  )
  images, replicated = PartitionSpec("data"), PartitionSpec()

  def gradients(x, kernel):
    return jax.grad(lambda *a: jnp.sum(fast(*a) ** 2), (0, 1))(x, kernel)

  actual = jax.jit(
    jax.shard_map(
      gradients,
      mesh=mesh,
      in_specs=(images, replicated),
      out_specs=(images, replicated),
    )
  )(x, kernel)
  expected = jax.grad(lambda *a: jnp.sum(literal(*a) ** 2), (0, 1))(x, kernel)
  for got, want in zip(actual, expected, strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("form", OTHERS)
def test_bfloat16_is_near_float32(form, name):
  fast, literal = _op(form, name), _op("literal", name)
  x, kernel = _inputs(name, (2, 8, 8, 16, 16), jnp.bfloat16)
  actual = jax.jit(lambda *a: _value_and_gradients(fast, *a))(x, kernel)
  x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
  expected = _value_and_gradients(literal, x, kernel)
  for got, want in zip(actual, expected, strict=True):
    assert got.dtype == jnp.bfloat16
    error = np.abs(np.asarray(got, np.float32) - want).max()
    # bfloat16 keeps 8 bits, and the result is rounded a few times.
    assert error < 2e-2 * np.abs(want).max()


@pytest.mark.slow
def test_bfloat16_errors_are_those_of_the_literal_form():
  # The error of an energy depends most on how the kernels are rounded, so there
  # are many networks.
  rngs = jax.random.split(jax.random.key(0), 64)

  def results(form, dtype):
    network = models.in_form(hat.make(16, 8, dtype), form)

    def one(rng):
      x = jax.random.normal(rng, (4, 16, 16, 3))
      variables = network.init(rng, x)
      gradient = jax.grad(lambda x: network.apply(variables, x).sum())
      return network.apply(variables, x), gradient(x)

    return jax.jit(lambda rngs: jax.lax.map(one, rngs))(rngs)

  exact = results("literal", jnp.float32)
  errors = {
    form: [
      np.sqrt(np.mean(np.square(found - expected)))
      for found, expected in zip(
        results(form, jnp.bfloat16), exact, strict=True
      )
    ]
    for form in conv_ops.FORMS
  }
  for form in OTHERS:
    for found, literal in zip(errors[form], errors["literal"], strict=True):
      assert found <= 1.2 * literal, errors


def test_auto_is_the_form_of_the_platform():
  for platform in ("cpu", "gpu", "tpu"):
    assert conv_ops.choose("auto", platform) in conv_ops.FORMS
    assert conv_ops.choose("literal", platform) == "literal"
  assert conv_ops.choose("auto", "cpu") == "packed"
  assert conv_ops.choose("auto", "gpu") == "strided"
  assert conv_ops.choose("auto", "tpu") == "dense"
  here = conv_ops.choose("auto", jax.default_backend())
  assert conv_ops.form("auto") is conv_ops.FORMS[here]
