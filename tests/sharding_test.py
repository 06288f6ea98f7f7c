"""Checks chains on 1 and on 8 devices, and the one all-reduce of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hatebm_jax import errors, langevin, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import generator as generator_lib
from hatebm_jax.models import hat as hat_lib


def mesh_of(count):
  return sharding.make_mesh(jax.devices()[:count])


def run_chains(count, update_z, hat_fn, generator_fn, method="shard_map"):
  """Runs 16 chains split over `count` devices. Returns z and y."""
  settings = langevin.Settings(
    5, 0.05, 0.05, max_drift_y=1.0, update_z=update_z
  )

  def chains(rngs):
    state = langevin.init_state(rngs, (4,), (16, 16, 1), 1.0, 0.1)
    return langevin.sample(rngs, hat_fn, generator_fn, state, settings)[0]

  rngs = rng_lib.per_index(jax.random.key(3), jnp.arange(16))
  split = sharding.split(chains, mesh_of(count), method=method)
  return jax.jit(split)(rngs)


@pytest.mark.parametrize("update_z", [False, True])
def test_noise_is_bit_identical_on_1_and_8_devices(update_z):
  # With a flat energy the state is the sum of the noise.
  one, eight = (
    run_chains(
      count,
      update_z,
      lambda x: jnp.zeros(x.shape[0]),
      lambda z: jnp.zeros((z.shape[0], 16, 16, 1)),
    )
    for count in (1, 8)
  )
  np.testing.assert_array_equal(one.y, eight.y)
  np.testing.assert_array_equal(one.z, eight.z)
  assert np.asarray(one.y).std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("update_z", [False, True])
def test_values_agree_on_1_and_8_devices(update_z):
  hat, generator = hat_lib.make(16, 8), generator_lib.make(16, 8, 1)
  hat_variables = jax.jit(hat.init)(
    jax.random.key(0), jnp.zeros((1, 16, 16, 1))
  )
  variables = jax.jit(generator.init)(jax.random.key(1), jnp.zeros((1, 4)))
  one, eight = (
    run_chains(
      count,
      update_z,
      lambda x: hat.apply(hat_variables, x),
      lambda z: generator.apply(variables, z),
    )
    for count in (1, 8)
  )
  np.testing.assert_allclose(one.y, eight.y, atol=1e-5)
  np.testing.assert_allclose(one.z, eight.z, atol=1e-5)


@pytest.mark.parametrize(
  "update_z", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_pmap_draws_the_same_samples(update_z):
  hat, generator = hat_lib.make(16, 8), generator_lib.make(16, 8, 1)
  hat_variables = jax.jit(hat.init)(
    jax.random.key(0), jnp.zeros((1, 16, 16, 1))
  )
  variables = jax.jit(generator.init)(jax.random.key(1), jnp.zeros((1, 4)))
  by_shard_map, by_pmap = (
    run_chains(
      8,
      update_z,
      lambda x: hat.apply(hat_variables, x),
      lambda z: generator.apply(variables, z),
      method,
    )
    for method in ("shard_map", "pmap")
  )
  np.testing.assert_array_equal(by_shard_map.y, by_pmap.y)
  np.testing.assert_array_equal(by_shard_map.z, by_pmap.z)


def test_another_way_to_split_is_refused():
  with pytest.raises(errors.ConfigError, match=r"sharding\.chains='xmap'"):
    sharding.split(lambda x: x, mesh_of(8), method="xmap")


def test_largest_axis_that_the_devices_divide():
  mesh = mesh_of(8)
  for shape, spec in {
    (): P(),
    (3, 5): P(),
    (3, 3, 8, 16): P(None, None, None, "data"),
    (24, 16): P("data"),
  }.items():
    assert sharding.largest_axis(shape, mesh) == spec


def test_gradients_are_those_of_the_whole_batch_in_one_all_reduce():
  def loss_fn(params, x):
    loss = jnp.square(x @ params["w"] + params["b"]).mean()
    return loss, {"mean": x.mean()}

  params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
  x = jax.random.normal(jax.random.key(0), (16, 2))
  split = jax.jit(sharding.value_and_grad(loss_fn, mesh_of(8)))
  got = split(params, x)
  expected = jax.value_and_grad(loss_fn, has_aux=True)(params, x)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)
  text = split.lower(params, x).compile().as_text()
  assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1


def test_chains_contain_no_collective():
  rngs = rng_lib.per_index(jax.random.key(3), jnp.arange(16))
  settings = langevin.Settings(3, 0.1)

  def chains(rngs):
    state = langevin.init_state(rngs, (4,), (4, 4, 1))
    return langevin.sample(
      rngs,
      lambda x: (x**2).sum((1, 2, 3)),
      lambda z: z[:, :, None, None] * jnp.ones((1, 1, 4, 1)),
      state,
      settings,
    )[0]

  split = jax.jit(sharding.split(chains, mesh_of(8)))
  text = split.lower(rngs).compile().as_text()
  for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
    assert name not in text


def test_global_batches_and_fetch_are_inverse():
  batches = np.arange(32, dtype=np.uint8).reshape(2, 16, 1, 1, 1)
  placed = sharding.global_batches(batches, mesh_of(8))
  shards = {shard.data.shape for shard in placed.addressable_shards}
  assert shards == {(2, 2, 1, 1, 1)}
  np.testing.assert_array_equal(sharding.fetch(placed), batches)
