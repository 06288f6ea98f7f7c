"""Networks of the paper as Flax Linen modules.

A module that can be the generator of a run (`generator`, `decoder`) has this
face, and `config.generator.kind` is its name:

- `make(image_size, width, channels=3, out_factor=1.0, norm_epsilon=1e-3,
  dtype=jnp.float32)` returns a Linen module whose `apply` maps latents to
  images;
- `latent_shape(image_size, latent_size)` returns the shape of one latent.
"""

from hatebm_jax.models import (
  decoder,
  discriminator,
  encoder,
  generator,
  hat,
  inception,
)

__all__ = [
  "decoder",
  "discriminator",
  "encoder",
  "generator",
  "hat",
  "inception",
]
