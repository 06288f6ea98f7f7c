"""Trains the classifier whose features define FD-digits.

python -m experiments.digits_network.train --out=FILE.npz
"""

import argparse
import pathlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hatebm_jax import data
from hatebm_jax.configs import digits
from hatebm_jax.metrics import digits_network
from hatebm_jax.run import npz

_NUM_STEPS = 3_000
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
# Standard deviation of the noise on images in [-1, 1]. Samples of a hat are not
# quite clean either.
_NOISE = 0.1
_MAX_SHIFT = 1  # pixels; the images have 16 x 16 pixels


def read(split: str) -> tuple[jax.Array, np.ndarray]:
  """Reads a split of the digits.

  Args:
    split: Name of the split, `train` or `test`.

  Returns:
    The network's inputs `[n, 16, 16, 1]` and the labels `[n]`.
  """
  config = digits.get_config().data
  images = data.load_all(data.open_source(config, split))
  return digits_network.to_input(images), data.digits_labels(split)


def augment(rng: jax.Array, images: jax.Array) -> jax.Array:
  """Shifts images by up to one pixel and adds noise.

  Args:
    rng: Random key of the batch.
    images: Images `[batch, height, width, channels]`.

  Returns:
    Images of the same shape.
  """
  rng_shift, rng_noise = jax.random.split(rng)
  shifts = jax.random.randint(
    rng_shift, (len(images), 2), -_MAX_SHIFT, _MAX_SHIFT + 1
  )
  # Both the left and the right border of a digit are background, so a column
  # that leaves on one side may come back on the other.
  shifted = jax.vmap(lambda x, by: jnp.roll(x, by, (0, 1)))(images, shifts)
  return shifted + _NOISE * jax.random.normal(rng_noise, images.shape)


def main() -> None:
  """Trains the network, prints its accuracy and writes its weights."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  out = parser.parse_args().out
  images, labels = read("train")
  network = digits_network.DigitsNetwork()
  variables = network.init(jax.random.key(0), images[:1])
  optimizer = optax.adamw(
    optax.cosine_decay_schedule(_LEARNING_RATE, _NUM_STEPS)
  )

  @jax.jit
  def step(carry, i):
    variables, optimizer_state = carry
    rng = jax.random.fold_in(jax.random.key(1), i)
    rows = jax.random.randint(rng, (_BATCH_SIZE,), 0, len(images))
    x = augment(jax.random.fold_in(rng, 1), images[rows])

    def loss_fn(variables):
      _, logits = network.apply(variables, x)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.asarray(labels)[rows]
      ).mean()

    loss, gradient = jax.value_and_grad(loss_fn)(variables)
    updates, optimizer_state = optimizer.update(
      gradient, optimizer_state, variables
    )
    return (optax.apply_updates(variables, updates), optimizer_state), loss

  carry = variables, optimizer.init(variables)
  (variables, _), losses = jax.lax.scan(step, carry, jnp.arange(_NUM_STEPS))
  print(f"loss of the last 100 steps: {losses[-100:].mean():.4f}")
  for split in ("train", "test"):
    x, expected = read(split)
    found = network.apply(variables, x)[1].argmax(1)
    print(f"{split}: {(found == expected).mean():.2%} of {len(x)} right")
  flat = flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/")
  npz.save(out, **flat)
  print(f"Written to {out}")


if __name__ == "__main__":
  main()
