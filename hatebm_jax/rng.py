"""Random streams. No state of a random generator is ever stored.

Every random number is a function of the seed, the name of its stream, the step,
and an index (the number of a chain or of a partition of the bank). A resumed
run, and a run on another number of devices, therefore draw the same numbers.
"""

import zlib

import jax


def stream(rng: jax.Array, name: str) -> jax.Array:
  """Returns the key of the stream of `rng` that has this name."""
  return jax.random.fold_in(rng, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def per_index(rng: jax.Array, indices: jax.Array) -> jax.Array:
  """Returns one key per index: `[n]` integers -> `[n]` keys."""
  return jax.vmap(lambda index: jax.random.fold_in(rng, index))(indices)


def fold_in(rngs: jax.Array, data: int | jax.Array) -> jax.Array:
  """Returns the keys `[n]` with one number folded into each of them."""
  return jax.vmap(lambda rng: jax.random.fold_in(rng, data))(rngs)


def normal(rngs: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns standard normal numbers `[n, *shape]`; row i needs only key i."""
  return jax.vmap(lambda rng: jax.random.normal(rng, shape))(rngs)
