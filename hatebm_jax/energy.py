"""Energies and their gradients, of networks whose parameters are bound.

The hat H scores images: `hat_fn` maps `[batch, height, width, channels]` to
energies `[batch]`. The generator G makes images: `generator_fn` maps latents
`[batch, ...]` to `[batch, height, width, channels]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

HatFn = Callable[[jax.Array], jax.Array]
GeneratorFn = Callable[[jax.Array], jax.Array]


def image_gradient(hat_fn: HatFn, x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the energies of images and the gradients in the images.

  Args:
    hat_fn: The hat, images -> energies `[batch]`.
    x: Images `[batch, height, width, channels]`.

  Returns:
    Energies `[batch]`, and their gradients with the shape of `x`.
  """
  energy, vjp_fn = jax.vjp(hat_fn, x)
  (gradient,) = vjp_fn(jnp.ones_like(energy))
  return energy, gradient


def ddls(
  discriminator_fn: HatFn, generator_fn: GeneratorFn
) -> Callable[[jax.Array], jax.Array]:
  """Returns the energy of a GAN's latents, p(z) ~ N(z; 0, I) exp(D(G(z))).

  This is the energy of discriminator driven latent sampling (Che et al.,
  NeurIPS 2020).

  Args:
    discriminator_fn: The discriminator D, images -> logits `[batch]`, which are
      high for real images.
    generator_fn: The generator G, latents `[batch, latent_size]` -> images.

  Returns:
    The function U(z) = ||z||^2 / 2 - D(G(z)), latents -> energies `[batch]`.
  """

  def energy_fn(z):
    prior = jnp.square(z).reshape(z.shape[0], -1).sum(1) / 2
    return prior - discriminator_fn(generator_fn(z))

  return energy_fn
