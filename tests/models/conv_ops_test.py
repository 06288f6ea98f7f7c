"""Checks the fast forms of convolution against the literal ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hatebm_jax.models import conv_ops

OPS = {
  "conv3x3": (conv_ops.conv3x3, conv_ops.conv3x3_literal),
  "conv3x3_down": (conv_ops.conv3x3_down, conv_ops.conv3x3_down_literal),
  "up_conv3x3": (conv_ops.up_conv3x3, conv_ops.up_conv3x3_literal),
}
SHAPES = [
  # batch, height, width, in, out
  (2, 4, 4, 1, 8),
  (3, 8, 8, 3, 16),
  (2, 16, 16, 16, 3),
  (2, 4, 8, 5, 7),
  (1, 16, 4, 8, 8),
  (1, 2, 2, 4, 4),
]


def _inputs(shape, dtype=np.float32):
  batch, height, width, channels_in, channels_out = shape
  rng = np.random.RandomState(sum(shape))
  x = rng.randn(batch, height, width, channels_in)
  kernel = rng.randn(3, 3, channels_in, channels_out) / 3
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def _value_and_gradients(op, x, kernel):
  y, pull = jax.vjp(op, x, kernel)
  dy = jnp.asarray(np.random.RandomState(1).randn(*y.shape), y.dtype)
  return (y, *pull(dy))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPS)
def test_fast_equals_literal(name, shape):
  fast, literal = OPS[name]
  x, kernel = _inputs(shape)
  actual = jax.jit(lambda *a: _value_and_gradients(fast, *a))(x, kernel)
  expected = jax.jit(lambda *a: _value_and_gradients(literal, *a))(x, kernel)
  for got, want in zip(actual, expected, strict=True):
    assert got.shape == want.shape
    scale = np.abs(want).max()
    np.testing.assert_allclose(got / scale, want / scale, atol=2e-6)


@pytest.mark.parametrize("name", OPS)
def test_gradient_inside_a_loop(name):
  fast, literal = OPS[name]
  x, kernel = _inputs((2, 8, 8, 4, 4))

  def descend(op):
    gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(op(x, kernel))))
    step = lambda _, x: x - 0.1 * gradient(x)
    return jax.jit(lambda x: jax.lax.fori_loop(0, 5, step, x))(x)

  np.testing.assert_allclose(descend(fast), descend(literal), atol=1e-5)


@pytest.mark.parametrize("name", OPS)
def test_gradients_inside_shard_map(name):
  fast, literal = OPS[name]
  x, kernel = _inputs((2, 8, 8, 4, 4))
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
def test_bfloat16_is_near_float32(name):
  fast, literal = OPS[name]
  x, kernel = _inputs((2, 8, 8, 16, 16), jnp.bfloat16)
  actual = jax.jit(lambda *a: _value_and_gradients(fast, *a))(x, kernel)
  x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
  expected = _value_and_gradients(literal, x, kernel)
  for got, want in zip(actual, expected, strict=True):
    assert got.dtype == jnp.bfloat16
    error = np.abs(np.asarray(got, np.float32) - want).max()
    # bfloat16 keeps 8 bits, and the result is rounded a few times.
    assert error < 2e-2 * np.abs(want).max()


def test_literal_networks_trace_the_literal_operations():
  x, kernel = _inputs((1, 4, 4, 2, 2))
  trace = lambda: str(jax.make_jaxpr(lambda: conv_ops.conv3x3(x, kernel))())
  with conv_ops.literal():
    inside = trace()
  assert "custom_vjp" not in inside
  assert "custom_vjp" in trace()
