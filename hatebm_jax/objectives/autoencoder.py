"""A deterministic autoencoder, whose decoder a retrofit starts from.

Encoder and decoder learn to reconstruct images. The latents lie on a sphere and
get a little noise (Hat EBM, section 4.2). Good samples need the hat of a
retrofit: from latents drawn from N(0, I) the decoder makes no good images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import energy as energy_lib
from hatebm_jax import networks, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import encoder as encoder_lib
from hatebm_jax.objectives.parts import generators, learner
from hatebm_jax.objectives.parts.objective import Objective, ShownImages

_NUM_SHOWN = 16  # They are decoded a second time, so few are shown.


class State(NamedTuple):
  """Everything that a run carries from step to step.

  Attributes:
    generator: Learner of the decoder.
    generator_stats: Batch-norm statistics of the decoder: mean 0, variance 1,
      never updated.
    encoder: Learner of the encoder.
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
    encoder_fn: The encoder I, images -> latents.
    decoder_fn: The decoder G, latents -> images.
    x: Images `[batch, height, width, channels]`.
    noise: Noise to add to the latents, `[batch, *latent_shape]`.
  """
  error = x - decoder_fn(encoder_fn(x) + noise)
  return 1000 * jnp.square(error).mean((1, 2, 3))


def make(config: ml_collections.ConfigDict, mesh: Mesh) -> Objective:
  """Returns the objective of an autoencoder config on a mesh.

  Raises:
    ConfigError: If the config's generator is not a decoder.
  """
  model = _make_networks(config)
  return Objective(
    init=_make_init(config, model),
    step=_make_step(config, mesh, model),
    partition_specs=learner.partition_specs(config, mesh),
    networks=model,
    test_loss=_make_test_loss(config, model),
  )


def _make_networks(config) -> networks.Networks:
  """Returns the decoder and the encoder of the config."""
  encoder = encoder_lib.make(
    config.data.image_size, config.model.width, jnp.dtype(config.model.dtype)
  ).clone(conv_form=config.model.conv_form)
  return generators.without_hat(config, "decoder")._replace(
    encoder=encoder,
    encoder_variables=lambda state, weights: {
      "params": learner.params_of(state.encoder, weights)
    },
  )


def _make_init(config, model) -> Callable[[jax.Array], State]:
  """Returns the initialisation of `make`."""

  def init(rng):
    decoder = model.generator.init(
      rng_lib.stream(rng, "generator"), jnp.zeros((1, *model.latent_shape))
    )
    encoder = model.encoder.init(
      rng_lib.stream(rng, "encoder"), jnp.zeros((1, *model.image_shape))
    )
    optimizer = learner.make_optimizer(config.generator)
    return State(
      generator=learner.start(decoder["params"], optimizer),
      generator_stats=decoder["batch_stats"],
      encoder=learner.start(encoder["params"], optimizer),
    )

  return init


def _noise(config, model, rng, batch_size) -> jax.Array:
  """Returns the noise of a batch of latents."""
  rngs = rng_lib.per_index(
    rng_lib.stream(rng, "latents"), jnp.arange(batch_size)
  )
  noise = rng_lib.normal(rngs, model.latent_shape)
  return config.autoencoder.latent_epsilon * noise


def _loss(model, decoder_variables, encoder_variables, x, noise):
  """Returns the reconstruction losses of images under given variables."""
  return reconstruction_loss(
    lambda x: model.encoder.apply(encoder_variables, x),
    lambda z: model.generator.apply(decoder_variables, z),
    x,
    noise,
  )


def _make_test_loss(config, model) -> Callable[..., jax.Array]:
  """Returns the test loss, with the same noise of latents as in training."""

  def test_loss(state, images, rng):
    x = pixels.to_float(images)
    decoder_variables = generators.variables_of(state, "raw")
    encoder_variables = model.encoder_variables(state, "raw")
    noise = _noise(config, model, rng, len(x))
    return _loss(model, decoder_variables, encoder_variables, x, noise)

  return test_loss


def _make_step(config, mesh, model) -> Callable[..., Any]:
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
      losses = _loss(model, decoder_variables, encoder_variables, x, noise)
      return losses.mean(), {}

    x = pixels.to_float(images)
    noise = _noise(config, model, rng, len(x))
    (loss, _), gradients = sharding.value_and_grad(loss_fn, mesh)(
      (state.generator.params, state.encoder.params), x, noise
    )
    state = state._replace(
      generator=learner.update(state.generator, gradients[0], optimizer, decay),
      encoder=learner.update(state.encoder, gradients[1], optimizer, decay),
    )
    shown = _shown(model, state, x[:_NUM_SHOWN], rng)
    return state, {"reconstruction_loss": loss}, shown

  return step


def _shown(model, state, x, rng) -> ShownImages:
  """Returns images, their reconstructions, and decoded noise N(0, I)."""
  z = model.encoder.apply(model.encoder_variables(state, "raw"), x)
  rngs = rng_lib.per_index(rng_lib.stream(rng, "shown"), jnp.arange(len(x)))
  noise = rng_lib.normal(rngs, model.latent_shape)
  variables = generators.variables_of(state, "raw")
  return {
    "data": x,
    "reconstruction": model.generator.apply(variables, z),
    "noise": model.generator.apply(variables, noise),
  }
