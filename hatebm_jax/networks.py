"""Hats and generators as plain functions, and the networks of a run.

A network is a pair of pure functions and its parameters, so that it may come
from any library: Flax Linen, Flax NNX, Equinox, or plain `jax.numpy`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hatebm_jax import energy, errors
from hatebm_jax.models import conv_ops, layers
from hatebm_jax.models import hat as hat_lib


class Hat(NamedTuple):
  """A hat network of any library, as two pure functions.

  All of its parameters are trained, averaged and saved with the run.

  Attributes:
    init: Function `(rng, images) -> params`; the result is a pytree of
      floating-point arrays.
    apply: Function `(params, images) -> energies`; it maps images
      `[batch, height, width, channels]` to float32 `[batch]` and must be
      differentiable in both arguments.
    bind: Function `(params, image_shape) -> hat_fn`; `hat_fn` is `apply` of
      these parameters, and a chain calls `bind` once. It may compute there what
      does not depend on the images. None means that there is no such thing.
    full_batch: Number of images that take a device no longer than half as many
      do. Fewer chains are repeated until there are this many, if they divide
      it.
    features: Function `(params, images) -> features`, float32
      `[batch, n]`, for the score `mahalanobis` of out-of-distribution
      detection. None means that there is no such score.
  """

  init: Callable[[jax.Array, jax.Array], Any]
  apply: Callable[[Any, jax.Array], jax.Array]
  bind: Callable[[Any, tuple[int, ...]], energy.HatFn] | None = None
  full_batch: int = 1
  features: Callable[[Any, jax.Array], jax.Array] | None = None


class Generator(NamedTuple):
  """A generator of any library, as a pure function.

  Attributes:
    apply: Function `(variables, z) -> images`; it maps latents
      `[batch, *latent_shape]` to float32 images
      `[batch, height, width, channels]` and must be differentiable in z. It may
      close over its parameters and ignore `variables`.
    latent_shape: Shape of one latent z, without the batch axis.
    variables: Pytree of arrays. They stay frozen and are saved with the run.
  """

  apply: Callable[[Any, jax.Array], jax.Array]
  latent_shape: tuple[int, ...]
  variables: Any = ()


class Networks(NamedTuple):
  """The networks of a run, and how to find their parameters in its state.

  Attributes:
    hat: The hat, which maps images to energies `[batch]`; None for a run
      without a hat, whose samples are G(z).
    generator: Linen module or `Generator`, which maps latents to images.
    variables: Function `(state, weights) -> (hat_params, generator_variables)`;
      `weights` is `raw` or `averaged`.
    latent_shape: Shape of one latent z.
    image_shape: Shape of one image, `(height, width, channels)`.
    encoder: Linen module that maps images to latents; None for a run without
      one.
    encoder_variables: Function `(state, weights) -> variables` of the encoder;
      None for a run without one.
    discriminator: Linen module that maps images to logits `[batch]`; None for a
      run without one.
    discriminator_variables: Function `(state, weights) -> variables` of the
      discriminator; None for a run without one.
  """

  hat: Hat | None
  generator: nn.Module | Generator
  variables: Callable[[Any, str], tuple[Any, Any]]
  latent_shape: tuple[int, ...]
  image_shape: tuple[int, ...]
  encoder: nn.Module | None = None
  encoder_variables: Callable[[Any, str], Any] | None = None
  discriminator: nn.Module | None = None
  discriminator_variables: Callable[[Any, str], Any] | None = None


def linen_hat(module: nn.Module) -> Hat:
  """Returns a Linen module, images -> energies `[batch]`, as a `Hat`.

  Args:
    module: Module whose only collection of variables is `params`.
  """
  conv_form = getattr(module, "conv_form", None)

  def bind(params, image_shape):
    variables = layers.prepare(module, {"params": params}, image_shape)
    return lambda x: module.apply(variables, x)

  return Hat(
    init=lambda rng, x: module.init(rng, x)["params"],
    apply=lambda params, x: module.apply({"params": params}, x),
    bind=bind,
    full_batch=conv_ops.form(conv_form).full_batch if conv_form else 1,
    features=functools.partial(hat_lib.features, module)
    if isinstance(module, hat_lib.Hat)
    else None,
  )


def check_hat(hat: Hat, image_shape: tuple[int, ...]) -> None:
  """Checks that a hat gives one float32 energy an image.

  Args:
    hat: Hat to check; nothing is computed.
    image_shape: Shape of one image, `(height, width, channels)`.

  Raises:
    ConfigError: If it gives anything else.
  """
  x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
  params = jax.eval_shape(hat.init, jax.random.key(0), x)
  found = jax.eval_shape(hat.apply, params, x)
  _check_output("hat gives", "two images", found, (2,))


def check_generator(
  apply: Callable[[Any, jax.Array], jax.Array],
  variables: Any,
  latent_shape: tuple[int, ...],
  image_shape: tuple[int, ...],
) -> None:
  """Checks that a generator makes float32 images of the expected shape.

  Args:
    apply: Function `(variables, z) -> images`; nothing is computed.
    variables: Variables of the generator, arrays or their shapes and dtypes.
    latent_shape: Shape of one latent z.
    image_shape: Expected shape of one image, `(height, width, channels)`.

  Raises:
    ConfigError: If it makes anything else.
  """
  z = jax.ShapeDtypeStruct((2, *latent_shape), jnp.float32)
  found = jax.eval_shape(apply, variables, z)
  _check_output("generator makes", "two latents", found, (2, *image_shape))


def _check_output(
  what: str, of: str, found: Any, expected: tuple[int, ...]
) -> None:
  """Raises a ConfigError unless an output is float32 of the expected shape."""
  shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
  if shape != expected or dtype != jnp.float32:
    raise errors.ConfigError(
      f"The {what} {dtype} {shape} of {of}, expected float32 {expected}. Set "
      "config.data.image_size and config.data.channels to the size of its "
      "images, or give another network."
    )
