import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hatebm_jax import bank, errors, sharding
from hatebm_jax import rng as rng_lib


def generator_fn(z):
  return z.sum(1).reshape(-1, 1, 1, 1) * jnp.ones((1, 2, 2, 1))


def make(partitions=4, slots=6):
  rngs = rng_lib.per_index(jax.random.key(0), jnp.arange(partitions))
  z = rng_lib.normal(rngs, (slots, 3))
  return bank.init(generator_fn, z, chunk=5)


@pytest.mark.parametrize(
  ("size", "batch", "devices", "expected"),
  [
    (10_000, 128, 1, (16, 625)),
    (10_000, 128, 16, (16, 625)),
    (10_000, 128, 32, (128, 79)),  # rounded up to 10,112
    (1_000, 32, 8, (8, 125)),
  ],
)
def test_layout(size, batch, devices, expected):
  assert bank.layout(size, batch, devices) == expected


def test_layout_refuses_a_bank_smaller_than_the_batch():
  with pytest.raises(errors.ConfigError, match=r"bank_size=16.*batch_size=32"):
    bank.layout(16, 32, 1)


def test_init_holds_what_the_generator_makes():
  pairs = make()
  assert pairs.z.shape == (4, 6, 3) and pairs.x.shape == (4, 6, 2, 2, 1)
  np.testing.assert_allclose(
    pairs.x[..., 0, 0, 0], pairs.z.sum(-1), rtol=1e-5, atol=1e-6
  )


def test_draw_returns_distinct_slots_and_their_pairs():
  pairs = make()
  rngs = rng_lib.per_index(jax.random.key(2), jnp.arange(4))
  slots, z, x = bank.draw(rngs, pairs, 5)
  assert all(len(set(row.tolist())) == 5 for row in np.asarray(slots))
  for i, (partition, slot) in enumerate(
    (p, s) for p in range(4) for s in np.asarray(slots)[p]
  ):
    np.testing.assert_array_equal(z[i], pairs.z[partition, slot])
    np.testing.assert_array_equal(x[i], pairs.x[partition, slot])


def test_draw_is_uniform():
  pairs = make(partitions=1, slots=6)
  draws = 3_000
  rngs = jax.random.split(jax.random.key(0), draws)
  slots = jax.vmap(lambda rng: bank.draw(rng[None], pairs, 2)[0])(rngs)
  counts = np.bincount(np.ravel(slots), minlength=6)
  # A slot is drawn with probability 1/3. The bound is five standard deviations.
  bound = 5 * np.sqrt(draws * 1 / 3 * 2 / 3)
  np.testing.assert_array_less(np.abs(counts - draws / 3), bound)


def test_write_overwrites_the_drawn_slots_alone():
  pairs = make()
  rngs = rng_lib.per_index(jax.random.key(2), jnp.arange(4))
  slots, z, x = bank.draw(rngs, pairs, 2)
  written = bank.write(pairs, slots, z + 100, x + 100)
  for p in range(4):
    for s in range(6):
      offset = 100 if s in np.asarray(slots)[p] else 0
      np.testing.assert_array_equal(written.z[p, s], pairs.z[p, s] + offset)
      np.testing.assert_array_equal(written.x[p, s], pairs.x[p, s] + offset)


def test_draws_do_not_depend_on_the_devices():
  pairs = make(partitions=8)
  rngs = rng_lib.per_index(jax.random.key(2), jnp.arange(8))
  one, eight = (
    jax.jit(
      sharding.split(
        lambda rngs, pairs: bank.draw(rngs, pairs, 3),
        sharding.make_mesh(jax.devices()[:count]),
      )
    )(rngs, pairs)
    for count in (1, 8)
  )
  for a, b in zip(one, eight, strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_bank_is_overwritten_in_place():
  pairs = make()

  def step(pairs, rngs):
    slots, z, x = bank.draw(rngs, pairs, 2)
    return bank.write(pairs, slots, jnp.ones_like(z), jnp.ones_like(x)), x

  rngs = rng_lib.per_index(jax.random.key(2), jnp.arange(4))
  compiled = jax.jit(step, donate_argnums=0).lower(pairs, rngs).compile()
  shape = ",".join(str(size) for size in pairs.x.shape)
  assert f"f32[{shape}]" in compiled.as_text()
  copies = re.findall(rf"= f32\[{shape}\]\S* copy\(", compiled.as_text())
  assert not copies


def abstract(partitions, slots, devices):
  """Returns shapes and places of a bank of images of 2 pixels."""
  mesh = sharding.make_mesh(jax.devices()[:devices])
  place = sharding.named(mesh, P(sharding.AXIS))
  return mesh, bank.Bank(
    jax.ShapeDtypeStruct((partitions, slots, 3), jnp.float32, sharding=place),
    jax.ShapeDtypeStruct(
      (partitions, slots, 2, 2, 1), jnp.float32, sharding=place
    ),
  )


@pytest.mark.parametrize(
  ("stored", "devices", "fits"),
  [
    ((128, 79), 1, True),  # The published bank on 32 devices.
    ((16, 625), 8, True),
    ((16, 625), 3, False),
    ((16, 625), 5, False),
    ((16, 625), 7, False),
  ],
)
def test_the_layout_of_a_checkpoint(stored, devices, fits):
  mesh, here = abstract(*bank.layout(10_000, 128, 1), devices)
  found = bank.as_stored(here, (*stored, 3), 10_000, 128, mesh)
  assert found.z.shape == (*stored, 3) and found.x.shape == (*stored, 2, 2, 1)
  assert bank.fits(found, mesh) == fits
  # Every device can hold its part, whichever axis divides.
  assert found.z.sharding.shard_shape(found.z.shape)


@pytest.mark.parametrize("stored", [(), (128, 80, 3), (625, 16, 3), (1, 1, 3)])
def test_what_is_no_layout_of_the_bank_is_left_to_the_check(stored):
  mesh, here = abstract(16, 625, 1)
  assert bank.as_stored(here, stored, 10_000, 128, mesh) is here


@pytest.mark.parametrize("to", [(8, 3), (8, 4), (2, 4), (24, 1), (3, 8)])
def test_pairs_in_another_layout(to):
  pairs = make(partitions=4, slots=6)
  _, like = abstract(*to, 1)
  found = bank.lay_out(pairs, like)
  for part, before in zip(found, pairs, strict=True):
    assert part.shape == (*to, *before.shape[2:])
    flat = np.reshape(part, (-1, *before.shape[2:]))
    before = np.reshape(before, (24, *flat.shape[1:]))
    for i, row in enumerate(flat):
      np.testing.assert_array_equal(row, before[i % 24])
