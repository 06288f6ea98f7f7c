"""Prints how far this device's float32 networks are from the CPU's.

It is a program of its own, because the tests run on CPU devices. The output is
one JSON object, relative L2 errors by form and value.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import models
from hatebm_jax.models import conv_ops, generator, hat


def values(form, device):
  """Returns energies, images and gradients that a device computes.

  The networks are small: where an input of a ReLU is near zero, rounding
  changes the gradient by more than rounding, and large networks have such
  inputs.
  """
  hat_net = models.in_form(hat.make(16, 16), form)
  generator_net = models.in_form(generator.make(16, 16), form)

  def run(hat_variables, generator_variables, x, z):
    energy, hat_gradients = jax.value_and_grad(
      lambda v, x: hat_net.apply(v, x).mean(), (0, 1)
    )(hat_variables, x)
    image_loss = lambda v, z: jnp.square(generator_net.apply(v, z) - x).mean()
    _, generator_gradients = jax.value_and_grad(image_loss, (0, 1))(
      generator_variables, z
    )
    return {
      "energy": energy,
      "images": generator_net.apply(generator_variables, z),
      "gradient_in_images": hat_gradients[1],
      "gradient_in_hat": hat_gradients[0],
      "gradient_in_latents": generator_gradients[1],
      "gradient_in_generator": generator_gradients[0]["params"],
    }

  x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
  z = jax.random.normal(jax.random.key(2), (4, 8))
  arguments = (
    jax.jit(hat_net.init)(jax.random.key(0), x),
    jax.jit(generator_net.init)(jax.random.key(3), z),
    x,
    z,
  )
  with jax.default_matmul_precision("highest"):
    return jax.device_get(jax.jit(run)(*jax.device_put(arguments, device)))


def difference(found, expected):
  """Returns the largest relative L2 error over the arrays of two trees."""
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
  return max(
    float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12)) for a, b in pairs
  )


def main(platform):
  cpu, device = jax.devices("cpu")[0], jax.devices(platform)[0]
  with jax.default_device(cpu):
    expected = values("literal", cpu)
    errors = {}
    for form in conv_ops.FORMS:
      found = values(form, device)
      errors[form] = {k: difference(found[k], expected[k]) for k in expected}
  print(json.dumps(errors))


if __name__ == "__main__":
  main(sys.argv[1])
