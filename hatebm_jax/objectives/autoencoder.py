"""A deterministic autoencoder: the generator that a retrofit starts from.

Encoder and decoder learn to reconstruct images; latents lie on a sphere and
get a little noise (Hat EBM, section 4.2). Samples need the hat of a retrofit:
the decoder of latents drawn from N(0, I) makes no good images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import energy as energy_lib
from hatebm_jax import errors, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import encoder as encoder_lib
from hatebm_jax.objectives.parts import base, generators, learner

_NUM_SHOWN = 16  # Images to look at are decoded a second time: few.


class State(NamedTuple):
  """Everything that a run carries from step to step.

  Attributes:
    generator: the decoder's learner.
    generator_stats: its batch-norm statistics: mean 0, variance 1, never
      updated.
    encoder: the encoder's learner.
  """

  generator: learner.Learner
  generator_stats: Any
  encoder: learner.Learner


def reconstruction_loss(
  encoder_fn: Callable[[jax.Array], jax.Array],
  decoder_fn: energy_lib.GeneratorFn,
  x: jax.Array,
  noise: jax.Array,
) -> jax.Array:
  """Losses of images, 1000 mean((x - G(I(x) + noise))^2), `[batch]`.

  Args:
    encoder_fn: I, images -> latents.
    decoder_fn: G, latents -> images.
    x: images `[batch, height, width, channels]`.
    noise: of the latents, `[batch, *latent_shape]`.
  """
  error = x - decoder_fn(encoder_fn(x) + noise)
  return 1000 * jnp.square(error).mean((1, 2, 3))


def make(config: ml_collections.ConfigDict, mesh: Mesh) -> base.Objective:
  """Returns the objective of an autoencoder config on a mesh.

  Raises:
    ConfigError: if the config's generator is no decoder.
  """
  networks = _make_networks(config)
  return base.Objective(
    init=_make_init(config, networks),
    step=_make_step(config, mesh, networks),
    partition_specs=lambda state: learner.partition_specs(
      state, mesh, config.sharding.split_optimizer
    ),
    networks=networks,
    test_loss=_make_test_loss(config, networks),
  )


def _make_networks(config) -> base.Networks:
  if config.generator.kind != "decoder":
    raise errors.ConfigError(
      f"config.generator.kind={config.generator.kind!r}: an autoencoder's is "
      "'decoder'."
    )
  size = config.data.image_size
  decoder, latent_shape = generators.make(config)
  return base.Networks(
    hat=None,
    generator=decoder,
    variables=lambda state, weights: (
      None,
      generators.variables_of(state, weights),
    ),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
    encoder=encoder_lib.make(
      size, config.model.width, jnp.dtype(config.model.dtype)
    ),
    encoder_variables=lambda state, weights: {
      "params": learner.params_of(state.encoder, weights)
    },
  )


def _make_init(config, networks) -> Callable[[jax.Array], State]:
  """Returns the initialisation of `make`."""

  def init(rng):
    decoder = networks.generator.init(
      rng_lib.stream(rng, "generator"), jnp.zeros((1, *networks.latent_shape))
    )
    encoder = networks.encoder.init(
      rng_lib.stream(rng, "encoder"), jnp.zeros((1, *networks.image_shape))
    )
    optimizer = learner.make_optimizer(config.generator)
    return State(
      generator=learner.start(decoder["params"], optimizer),
      generator_stats=decoder["batch_stats"],
      encoder=learner.start(encoder["params"], optimizer),
    )

  return init


def _noise(config, networks, rng, batch_size) -> jax.Array:
  """Noise of a batch of latents."""
  rngs = rng_lib.per_index(
    rng_lib.stream(rng, "latents"), jnp.arange(batch_size)
  )
  noise = rng_lib.normal(rngs, networks.latent_shape)
  return config.autoencoder.latent_epsilon * noise


def _loss(networks, decoder_variables, encoder_variables, x, noise):
  return reconstruction_loss(
    lambda x: networks.encoder.apply(encoder_variables, x),
    lambda z: networks.generator.apply(decoder_variables, z),
    x,
    noise,
  )


def _make_test_loss(config, networks) -> Callable[..., jax.Array]:
  """Returns the losses of uint8 images, with noise as in training."""

  def test_loss(state, images, rng):
    x = pixels.to_float(images)
    decoder_variables = generators.variables_of(state, "raw")
    encoder_variables = networks.encoder_variables(state, "raw")
    noise = _noise(config, networks, rng, len(x))
    return _loss(networks, decoder_variables, encoder_variables, x, noise)

  return test_loss


def _make_step(config, mesh, networks) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  optimizer = learner.make_optimizer(config.generator)
  decay = config.train.average_decay

  def step(state, images, rng):
    def loss_fn(params, x, noise):
      decoder_params, encoder_params = params
      decoder_variables = {
        "params": decoder_params,
        "batch_stats": state.generator_stats,
      }
      encoder_variables = {"params": encoder_params}
      losses = _loss(networks, decoder_variables, encoder_variables, x, noise)
      return losses.mean(), {}

    x = pixels.to_float(images)
    noise = _noise(config, networks, rng, len(x))
    (loss, _), gradients = sharding.value_and_grad(loss_fn, mesh)(
      (state.generator.params, state.encoder.params), x, noise
    )
    state = state._replace(
      generator=learner.update(state.generator, gradients[0], optimizer, decay),
      encoder=learner.update(state.encoder, gradients[1], optimizer, decay),
    )
    shown = _shown(networks, state, x[:_NUM_SHOWN], rng)
    return state, {"reconstruction_loss": loss}, shown

  return step


def _shown(networks, state, x, rng) -> base.Images:
  """Images beside their reconstructions, and decoded N(0, I)."""
  z = networks.encoder.apply(networks.encoder_variables(state, "raw"), x)
  rngs = rng_lib.per_index(rng_lib.stream(rng, "shown"), jnp.arange(len(x)))
  noise = rng_lib.normal(rngs, networks.latent_shape)
  variables = generators.variables_of(state, "raw")
  return {
    "data": x,
    "reconstruction": networks.generator.apply(variables, z),
    "noise": networks.generator.apply(variables, noise),
  }
