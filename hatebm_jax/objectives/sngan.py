"""SN-GAN after the recipe of torch-mimicry, which refinement starts from.

It has the hinge loss, spectral norm on every layer of the discriminator, and
several discriminator steps per generator step (Miyato et al., ICLR 2018). As in
torch-mimicry, every forward pass of a training step moves the generator's
batch-norm statistics and takes one power iteration.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import optim, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.models import discriminator as discriminator_lib
from hatebm_jax.objectives.parts import generators, learner
from hatebm_jax.objectives.parts.objective import Objective


class State(NamedTuple):
  """Everything that a run carries from step to step.

  Attributes:
    generator: Learner of the generator.
    generator_stats: Batch-norm statistics of the generator, which learn.
    discriminator: Learner of the discriminator.
    spectral: Estimates of the discriminator's singular vectors.
  """

  generator: learner.Learner
  generator_stats: Any
  discriminator: learner.Learner
  spectral: Any


def discriminator_loss(
  logits_data: jax.Array, logits_sample: jax.Array
) -> jax.Array:
  """Hinge loss, mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z)))."""
  return nn.relu(1 - logits_data).mean() + nn.relu(1 + logits_sample).mean()


def generator_loss(logits_sample: jax.Array) -> jax.Array:
  """Hinge loss of the generator, -mean D(G(z))."""
  return -logits_sample.mean()


def make(config: ml_collections.ConfigDict, mesh: Mesh) -> Objective:
  """Returns the objective of an SN-GAN config on a mesh.

  Raises:
    ConfigError: If the config's generator is a decoder.
  """
  discriminator = make_discriminator(config)
  model = generators.without_hat(config, "generator")._replace(
    discriminator=discriminator,
    discriminator_variables=discriminator_variables,
  )
  return Objective(
    init=_make_init(config, model, discriminator),
    step=_make_step(config, mesh, model, discriminator),
    partition_specs=learner.partition_specs(config, mesh),
    networks=model,
    batches_per_step=config.sngan.discriminator_steps,
  )


def make_discriminator(config: ml_collections.ConfigDict) -> nn.Module:
  """Returns the discriminator of an SN-GAN config."""
  return discriminator_lib.make(
    config.data.image_size,
    config.sngan.discriminator_width,
    jnp.dtype(config.model.dtype),
  ).clone(conv_form=config.model.conv_form)


def discriminator_variables(state: State, weights: str) -> dict[str, Any]:
  """Returns the variables of the trained discriminator.

  Args:
    state: State of the run.
    weights: Which weights of the learner, `raw` or `averaged`. There is one set
      of estimates of the singular vectors.
  """
  return {
    "params": learner.params_of(state.discriminator, weights),
    "spectral": state.spectral,
  }


def _make_optimizers(config):
  """Returns the optimizers of the generator and of the discriminator."""
  settings = config.sngan
  return (
    optim.gan_adam(config.generator.learning_rate, settings.decay_steps),
    optim.gan_adam(
      settings.discriminator_learning_rate,
      settings.decay_steps,
      settings.discriminator_steps,
    ),
  )


def _scale_blocks(params: Any) -> Any:
  """Scales Glorot's 3x3 kernels of the blocks by sqrt(2), as torch-mimicry."""

  def scale(path, leaf):
    names = [key.key for key in path]
    inside = names[-2] in ("conv_0", "conv_1") and names[-1] == "kernel"
    return math.sqrt(2) * leaf if inside else leaf

  return jax.tree_util.tree_map_with_path(scale, params)


def _make_init(config, model, discriminator) -> Callable[..., State]:
  """Returns the initialisation of `make`."""
  generator_optimizer, discriminator_optimizer = _make_optimizers(config)

  def init(rng):
    g = model.generator.init(
      rng_lib.stream(rng, "generator"), jnp.zeros((1, *model.latent_shape))
    )
    d = discriminator.init(
      rng_lib.stream(rng, "discriminator"),
      jnp.zeros((1, *model.image_shape)),
    )
    return State(
      generator=learner.start(_scale_blocks(g["params"]), generator_optimizer),
      generator_stats=g["batch_stats"],
      discriminator=learner.start(
        _scale_blocks(d["params"]), discriminator_optimizer
      ),
      spectral=d["spectral"],
    )

  return init


def _generate(model, params, stats, z):
  """Returns G(z) of a training step, and the statistics after it."""
  images, new = model.generator.apply(
    {"params": params, "batch_stats": stats},
    z,
    train=True,
    axis_name=sharding.AXIS,
    mutable=["batch_stats"],
  )
  return images, new["batch_stats"]


def _score(discriminator, params, spectral, x):
  """Returns D(x) after a power iteration, and its estimates after it."""
  logits, new = discriminator.apply(
    {"params": params, "spectral": spectral},
    x,
    train=True,
    mutable=["spectral"],
  )
  return logits, new["spectral"]


def _make_discriminator_update(config, mesh, model, discriminator):
  """Returns `(state, x_data, z) -> (state, metrics)`."""
  _, optimizer = _make_optimizers(config)

  def update(state, x_data, z):
    def loss_fn(params, x_data, z):
      x_sample, stats = _generate(
        model, state.generator.params, state.generator_stats, z
      )
      logits_data, spectral = _score(
        discriminator, params, state.spectral, x_data
      )
      logits_sample, spectral = _score(
        discriminator, params, spectral, x_sample
      )
      loss = discriminator_loss(logits_data, logits_sample)
      metrics = {
        "logit_data": logits_data.mean(),
        "logit_sample": logits_sample.mean(),
      }
      return loss, (metrics, spectral, stats)

    (loss, aux), gradients = sharding.value_and_grad(loss_fn, mesh)(
      state.discriminator.params, x_data, z
    )
    metrics, spectral, stats = aux
    state = state._replace(
      generator_stats=stats,
      discriminator=learner.update(
        state.discriminator, gradients, optimizer, config.train.average_decay
      ),
      spectral=spectral,
    )
    return state, metrics | {"discriminator_loss": loss}

  return update


def _make_generator_update(config, mesh, model, discriminator):
  """Returns `(state, z) -> (state, loss)`."""
  optimizer, _ = _make_optimizers(config)

  def update(state, z):
    def loss_fn(params, z):
      x_sample, stats = _generate(model, params, state.generator_stats, z)
      logits, spectral = _score(
        discriminator, state.discriminator.params, state.spectral, x_sample
      )
      return generator_loss(logits), (spectral, stats)

    (loss, (spectral, stats)), gradients = sharding.value_and_grad(
      loss_fn, mesh
    )(state.generator.params, z)
    generator = learner.update(
      state.generator, gradients, optimizer, config.train.average_decay
    )
    state = state._replace(
      generator=generator, generator_stats=stats, spectral=spectral
    )
    return state, loss

  return update


def _make_step(config, mesh, model, discriminator) -> Callable[..., Any]:
  """Returns the training step of `make`."""
  parts = (config, mesh, model, discriminator)
  update_discriminator = _make_discriminator_update(*parts)
  update_generator = _make_generator_update(*parts)
  batch_size = config.train.batch_size
  num_batches = config.sngan.discriminator_steps

  def draw_z(rng):
    rngs = rng_lib.per_index(rng, jnp.arange(batch_size))
    return rng_lib.normal(rngs, model.latent_shape)

  def step(state, images, rng):
    # A batch takes every num_batches-th image. Its rows then lie split over the
    # devices in the same way as the rows of all batches together.
    x_data = pixels.to_float(images)
    x_data = x_data.reshape(batch_size, num_batches, *x_data.shape[1:])
    rngs = rng_lib.per_index(
      rng_lib.stream(rng, "discriminator"), jnp.arange(num_batches)
    )
    state, metrics = jax.lax.scan(
      lambda state, batch: update_discriminator(state, *batch),
      state,
      (x_data.swapaxes(0, 1), jax.vmap(draw_z)(rngs)),
    )
    z = draw_z(rng_lib.stream(rng, "generator"))
    state, loss = update_generator(state, z)
    metrics = {name: values.mean() for name, values in metrics.items()}
    shown = {
      "data": x_data[:, 0],
      "generator": model.generator.apply(
        generators.variables_of(state, "raw"), z
      ),
    }
    return state, metrics | {"generator_loss": loss}, shown

  return step
