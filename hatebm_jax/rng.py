"""Random streams: no generator state is ever stored.

Every random number is a function of the seed, the name of its stream, the step
and an index (of a chain, of a bank partition), so that a resumed run, and a run
on another number of devices, draws the same ones.
"""

import zlib

import jax


def stream(rng: jax.Array, name: str) -> jax.Array:
  """Returns the key of a named stream of `rng`."""
  return jax.random.fold_in(rng, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def per_index(rng: jax.Array, indices: jax.Array) -> jax.Array:
  """Returns a key an index: `[n]` integers -> `[n]` keys."""
  return jax.vmap(lambda index: jax.random.fold_in(rng, index))(indices)


def normal(rngs: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal `[n, *shape]`, float32, row i from key i alone."""
  return jax.vmap(lambda rng: jax.random.normal(rng, shape))(rngs)
