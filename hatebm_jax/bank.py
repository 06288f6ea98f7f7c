"""The bank of pairs (z, x) that the generator learns from in synthesis.

A training step draws `batch_size` distinct slots, moves the generator towards
their pairs, and overwrites the same slots with the fresh chains of the step.
The bank is cut into partitions, and each device holds whole partitions. Each
step draws the same number of slots from every partition. A device therefore
draws from its own part, and the draw does not depend on the number of devices.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import energy as energy_lib
from hatebm_jax import errors, sharding


class Bank(NamedTuple):
  """Pairs of a latent and the image that a chain made from it.

  Attributes:
    z: Latents `[partitions, slots, ...]`, float32.
    x: Images `[partitions, slots, height, width, channels]`, float32.
  """

  z: jax.Array
  x: jax.Array


def layout(size: int, batch_size: int, num_devices: int) -> tuple[int, int]:
  """Returns the number of partitions and the number of slots in each.

  The number of partitions divides the batch size and is a multiple of the
  number of devices. Where `size` allows no such layout, it is rounded up to a
  multiple of the batch size.

  Args:
    size: Number of pairs in the bank, `config.generator.bank_size`.
    batch_size: Number of slots that a training step draws.
    num_devices: Number of devices that share the bank.

  Raises:
    ConfigError: If the bank is smaller than the batch, or the batch does not
      divide over the devices.
  """
  if size < batch_size:
    raise errors.ConfigError(
      f"config.generator.bank_size={size}: expected at least "
      f"config.train.batch_size={batch_size}, because a training step draws as "
      "many distinct slots. Make the bank larger."
    )
  if batch_size % num_devices:
    raise errors.ConfigError(
      f"config.train.batch_size={batch_size}: expected a multiple of the "
      f"{num_devices} devices that share the batch. Change the batch size."
    )
  partitions = math.gcd(size, batch_size)
  if partitions % num_devices:
    partitions = batch_size
  return partitions, -(-size // partitions)


def as_stored(
  abstract: Bank,
  stored_shape: tuple[int, ...],
  size: int,
  batch_size: int,
  mesh: Mesh,
) -> Bank:
  """Returns a bank's shapes and places with the layout of a checkpoint.

  Args:
    abstract: Shapes of the bank on these devices.
    stored_shape: Shape of the checkpoint's z, `[partitions, slots, ...]`. If it
      is no layout of such a bank, `abstract` is returned as it is.
    size: Number of pairs in the bank, `config.generator.bank_size`.
    batch_size: Number of slots that a training step draws.
    mesh: Mesh of these devices.
  """
  partitions = math.gcd(size, batch_size), batch_size
  layouts = [(n, -(-size // n)) for n in partitions]
  if stored_shape[:2] not in layouts:
    return abstract

  def of_stored(leaf):
    shape = *stored_shape[:2], *leaf.shape[2:]
    spec = P(sharding.AXIS)
    if stored_shape[0] % mesh.size:
      spec = sharding.largest_axis(shape, mesh)
    place = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=place)

  return jax.tree.map(of_stored, abstract)


def fits(bank: Bank, mesh: Mesh) -> bool:
  """Returns whether each device can hold whole partitions of a bank."""
  return bank.z.shape[0] % mesh.size == 0


def lay_out(bank: Bank, abstract: Bank) -> Bank:
  """Returns the pairs of a bank in another layout.

  The first pairs fill up a larger bank.

  Args:
    bank: Bank in the layout of other devices.
    abstract: Shapes and shardings of the result.
  """

  def move(leaf, like):
    flat = leaf.reshape(-1, *leaf.shape[2:])
    num = math.prod(like.shape[:2])
    return flat[jnp.arange(num) % len(flat)].reshape(like.shape)

  return jax.jit(
    lambda bank: jax.tree.map(move, bank, abstract),
    out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract),
  )(bank)


def init(
  generator_fn: energy_lib.GeneratorFn, z: jax.Array, chunk: int
) -> Bank:
  """Fills a bank with z and x = G(z).

  Args:
    generator_fn: The generator, latents `[n, ...]` -> images.
    z: Latents `[partitions, slots, ...]`.
    chunk: Number of images that the generator makes at a time.
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
    rngs: Random keys, one per partition.
    bank: Bank to draw from.
    num: Number of slots to draw from each partition.

  Returns:
    The slots `[partitions, num]`, their z `[partitions * num, ...]` and their x
    `[partitions * num, height, width, channels]`.
  """
  num_slots = bank.z.shape[1]
  # The slots with the largest uniform numbers are a uniform subset. This needs
  # no sort.
  scores = jax.vmap(lambda rng: jax.random.uniform(rng, (num_slots,)))(rngs)
  slots = jax.lax.top_k(scores, num)[1]
  z, x = jax.tree.map(
    lambda part: jax.vmap(lambda rows, slot: rows[slot])(part, slots), bank
  )
  # This always adds 0, but it makes every write to the slots wait for what was
  # read from them. Without it XLA copies the whole bank first, twice.
  slots += ((z > jnp.inf).any() | (x > jnp.inf).any()).astype(slots.dtype)
  return slots, z.reshape(-1, *z.shape[2:]), x.reshape(-1, *x.shape[2:])


def write(bank: Bank, slots: jax.Array, z: jax.Array, x: jax.Array) -> Bank:
  """Returns the bank with new pairs in the drawn slots, the inverse of `draw`.

  Args:
    bank: Bank to write to.
    slots: Slots `[partitions, num]`, from `draw`.
    z: New latents `[partitions * num, ...]`.
    x: New images `[partitions * num, height, width, channels]`.
  """

  def overwrite(part, new):
    new = new.reshape(*slots.shape, *new.shape[1:])
    return jax.vmap(lambda rows, slot, row: rows.at[slot].set(row))(
      part, slots, new
    )

  return Bank(overwrite(bank.z, z), overwrite(bank.x, x))
