"""Energies of Hat EBM: functions of a hat and a generator, parameters bound.

The hat scores images, `hat_fn: [batch, height, width, channels] -> [batch]`;
the generator makes them, `generator_fn: z -> [batch, height, width, channels]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

HatFn = Callable[[jax.Array], jax.Array]
GeneratorFn = Callable[[jax.Array], jax.Array]
EnergyFn = Callable[[jax.Array, jax.Array], jax.Array]


def _square_norm(x: jax.Array) -> jax.Array:
  """Squared L2 norm of each row: `[batch, ...]` -> `[batch]`."""
  return jnp.square(x).reshape(x.shape[0], -1).sum(1)


def joint(
  hat_fn: HatFn,
  generator_fn: GeneratorFn,
  temperature: float = 1.0,
  tau: float = 0.0,
) -> EnergyFn:
  """Energy of the joint form, p(y, z) ~ exp(-U(z, y)).

  Returns:
    U(z, y) = H(G(z) + y) / T + tau ||y||^2, `[batch]`. There is no prior on z.
  """

  def energy_fn(z, y):
    return hat_fn(generator_fn(z) + y) / temperature + tau * _square_norm(y)

  return energy_fn


def conditional(
  hat_fn: HatFn, generator_fn: GeneratorFn, temperature: float = 1.0
) -> EnergyFn:
  """Energy of the form conditional on z, p(y, z) ~ N(z; 0, I) exp(-H/T)/Z(z).

  Returns:
    U(z, y) = H(G(z) + y) / T + ||z||^2 / 2, `[batch]`, up to log Z(z): its
    gradient in y is exact, z is drawn from its prior and never moved.
  """

  def energy_fn(z, y):
    return hat_fn(generator_fn(z) + y) / temperature + _square_norm(z) / 2

  return energy_fn


def image_gradient(hat_fn: HatFn, x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns energies `[batch]` and their gradients in the images `x`."""
  energy, vjp_fn = jax.vjp(hat_fn, x)
  (gradient,) = vjp_fn(jnp.ones_like(energy))
  return energy, gradient


def ddls(
  discriminator_fn: HatFn, generator_fn: GeneratorFn
) -> Callable[[jax.Array], jax.Array]:
  """Energy of a GAN's latents, p(z) ~ N(z; 0, I) exp(D(G(z))).

  Che et al., NeurIPS 2020 (discriminator driven latent sampling).

  Args:
    discriminator_fn: D, images -> logits `[batch]`, high for real ones.
    generator_fn: G, latents -> images.

  Returns:
    U(z) = ||z||^2 / 2 - D(G(z)), `[batch]`.
  """

  def energy_fn(z):
    return _square_norm(z) / 2 - discriminator_fn(generator_fn(z))

  return energy_fn
