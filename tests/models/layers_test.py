import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import models
from hatebm_jax.models import conv_ops, hat, layers


@pytest.mark.parametrize("form", conv_ops.FORMS)
def test_prepared_kernels_give_the_same_energies(form):
  network = models.in_form(hat.make(16, 4, jnp.bfloat16), form)
  x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
  variables = jax.jit(network.init)(jax.random.key(0), x)
  assert set(variables) == {"params"}
  prepare = jax.jit(lambda v: layers.prepare(network, v, x.shape[1:]))
  prepared = prepare(variables)
  kernel = prepared["prepared"]["block_0"]["conv_1"]["kernel"]
  window = {"strided": (4, 4), "dense": (2, 2)}.get(form, (3, 3))
  assert kernel.shape[:2] == window
  assert kernel.dtype == jnp.bfloat16
  apply = jax.jit(network.apply)
  np.testing.assert_allclose(
    apply(prepared, x), apply(variables, x), rtol=0.01, atol=1e-3
  )
  # The parameters of these layers are then not used.
  zeros = jax.tree.map(jnp.zeros_like, variables["params"]["block_0"])
  params = {**variables["params"], "block_0": zeros}
  np.testing.assert_array_equal(
    apply({**prepared, "params": params}, x), apply(prepared, x)
  )
