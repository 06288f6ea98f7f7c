"""The generator's bank of pairs (z, x): what cooperative learning trains it on.

A training step draws `batch_size` distinct slots, moves the generator towards
their pairs, and overwrites the same slots with the step's fresh chains. The
bank is cut into partitions, of which a device holds whole ones; each step draws
the same number of slots from every partition. So a device draws from its own
part, and what is drawn does not depend on how many devices there are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hatebm_jax import energy as energy_lib
from hatebm_jax import errors


class Bank(NamedTuple):
  """Pairs of a latent and the image that a chain made from it.

  Attributes:
    z: `[partitions, slots, ...]`, float32.
    x: `[partitions, slots, height, width, channels]`, float32.
  """

  z: jax.Array
  x: jax.Array


def layout(size: int, batch_size: int, num_devices: int) -> tuple[int, int]:
  """Returns the bank's (partitions, slots a partition).

  The partitions divide the batch, and the devices divide the partitions. Where
  `size` allows no such layout, it is rounded up to a multiple of the batch.

  Raises:
    ConfigError: if the bank is smaller than the batch, or the devices do not
      divide the batch.
  """
  if size < batch_size:
    raise errors.ConfigError(
      f"config.generator.bank_size={size}: a step draws "
      f"config.train.batch_size={batch_size} distinct slots; make the bank at "
      "least as large."
    )
  if batch_size % num_devices:
    raise errors.ConfigError(
      f"config.train.batch_size={batch_size} does not divide over "
      f"{num_devices} devices."
    )
  partitions = math.gcd(size, batch_size)
  if partitions % num_devices:
    partitions = batch_size
  return partitions, -(-size // partitions)


def init(
  generator_fn: energy_lib.GeneratorFn, z: jax.Array, chunk: int
) -> Bank:
  """Fills a bank with z and x = G(z).

  Args:
    generator_fn: latents `[n, ...]` -> images.
    z: latents `[partitions, slots, ...]`.
    chunk: how many images the generator makes at a time.
  """
  flat = z.reshape(-1, *z.shape[2:])
  generate_one = lambda row: generator_fn(row[None])[0]
  x = jax.lax.map(generate_one, flat, batch_size=chunk)
  return Bank(z, x.reshape(*z.shape[:2], *x.shape[1:]))


def draw(
  rngs: jax.Array, bank: Bank, num: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws `num` distinct slots of each partition, uniformly.

  Args:
    rngs: a key a partition.
    bank: to draw from.
    num: slots a partition.

  Returns:
    The slots `[partitions, num]`, their z `[partitions * num, ...]` and their x
    `[partitions * num, height, width, channels]`.
  """
  num_slots = bank.z.shape[1]
  # The largest of uniform numbers: a uniform subset, without a sort.
  scores = jax.vmap(lambda rng: jax.random.uniform(rng, (num_slots,)))(rngs)
  slots = jax.lax.top_k(scores, num)[1]
  z, x = jax.tree.map(
    lambda part: jax.vmap(lambda rows, slot: rows[slot])(part, slots), bank
  )
  # Always adds 0. But with it whoever writes to the slots waits for what was
  # read from them; else XLA copies the whole bank first, twice.
  slots += ((z > jnp.inf).any() | (x > jnp.inf).any()).astype(slots.dtype)
  return slots, z.reshape(-1, *z.shape[2:]), x.reshape(-1, *x.shape[2:])


def write(bank: Bank, slots: jax.Array, z: jax.Array, x: jax.Array) -> Bank:
  """Overwrites drawn slots: the inverse of `draw`."""

  def overwrite(part, new):
    new = new.reshape(*slots.shape, *new.shape[1:])
    return jax.vmap(lambda rows, slot, row: rows.at[slot].set(row))(
      part, slots, new
    )

  return Bank(overwrite(bank.z, z), overwrite(bank.x, x))
