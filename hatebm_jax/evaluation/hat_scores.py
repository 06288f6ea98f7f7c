"""Scores of images by a hat, which others use beside the energy.

Every score is expected to be higher for images that are out of distribution.
This direction is fixed here and does not depend on any result.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hatebm_jax import chains, langevin, pixels, sample
from hatebm_jax import energy as energy_lib
from hatebm_jax.metrics import batches

_DRIFT_STEPS = 10  # Number of Langevin steps of a short chain.


def gradient_norm(hat_fn: energy_lib.HatFn, x: jax.Array) -> jax.Array:
  """Returns the L2 norms of the gradients of H in the images.

  Args:
    hat_fn: The hat, images -> energies `[batch]`.
    x: Images in [-1, 1], `[batch, height, width, channels]`.

  Returns:
    float32 `[batch]`.
  """
  _, gradient = energy_lib.image_gradient(hat_fn, x)
  return jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)))


def drift(
  hat_fn: energy_lib.HatFn, x: jax.Array, settings: langevin.Settings
) -> jax.Array:
  """Returns how far a chain that starts at an image moves away from it.

  Args:
    hat_fn: The hat, images -> energies `[batch]`.
    x: Images in [-1, 1], `[batch, height, width, channels]`.
    settings: Settings of the chain, in which the image takes the place of y. It
      has no noise, so that the score of an image does not depend on others.

  Returns:
    Root of the mean squared change of a pixel, float32 `[batch]`. A chain that
    leaves the range of float32 has the largest number of this type.
  """
  start = langevin.State(jnp.zeros((len(x), 1)), x)
  end, _ = langevin.sample(
    jax.random.key(0), hat_fn, lambda z: jnp.zeros_like(x), start, settings
  )
  distance = jnp.sqrt(jnp.square(end.y - x).mean((1, 2, 3)))
  return jnp.nan_to_num(distance, nan=jnp.finfo(jnp.float32).max)


def typicality(energies: np.ndarray, held_out: np.ndarray) -> np.ndarray:
  """Returns how far energies are from the mean of in-distribution images.

  Args:
    energies: Energies of the images that are scored, `[n]`.
    held_out: Energies of other images of the distribution, `[m]`.

  Returns:
    float64 `[n]`.
  """
  energies = np.asarray(energies, np.float64)
  return np.abs(energies - np.mean(held_out, dtype=np.float64))


def mahalanobis(features: np.ndarray, held_out: np.ndarray) -> np.ndarray:
  """Returns how far features are from the mean of in-distribution images.

  It is the distance of Lee et al., "A simple unified framework for detecting
  out-of-distribution samples" (2018), with one class. The covariance is
  shrunk as Ledoit and Wolf do, because there may be more features than images.

  Args:
    features: Features of the images that are scored, `[n, d]`.
    held_out: Features of other images of the distribution, `[m, d]`.

  Returns:
    Mahalanobis distances, float64 `[n]`.
  """
  from sklearn import covariance  # The import takes a second.

  fitted = covariance.LedoitWolf().fit(np.asarray(held_out, np.float64))
  return np.sqrt(fitted.mahalanobis(np.asarray(features, np.float64)))


def drift_settings(config: ml_collections.ConfigDict) -> langevin.Settings:
  """Returns the settings of the short chains.

  They are those of training, for which the hat was made, without noise, the
  prior on y and annealing.

  Args:
    config: Config of the run.
  """
  return chains.training_plan(config).settings._replace(
    num_steps=_DRIFT_STEPS,
    tau=0.0,
    update_z=False,
    noise=False,
    annealing=1.0,
    cycle=1,
  )


def feature_scorer(
  restored: sample.Restored,
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the hat's features of images as one compiled function.

  Args:
    restored: Run with a hat that has features.

  Returns:
    A function of images, uint8 `[n, height, width, channels]`. It computes on
    all devices and returns float32 `[n, d]`.
  """
  hat = restored.networks.hat
  return _over_batches(
    restored, lambda v, images: hat.features(v[0], pixels.to_float(images))
  )


def scorer(
  restored: sample.Restored,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Returns the scores that need gradients as one compiled function.

  Args:
    restored: Run that has a hat.

  Returns:
    A function of images, uint8 `[n, height, width, channels]`. It computes on
    all devices and returns the norms of the gradients and the drifts, each
    float32 `[n]`.
  """
  settings = drift_settings(restored.config)

  def compute(variables, images):
    hat_fn, _ = chains.bind(restored.networks, variables)
    x = pixels.to_float(images)
    return gradient_norm(hat_fn, x), drift(hat_fn, x, settings)

  return _over_batches(restored, compute)


def _over_batches(
  restored: sample.Restored, compute: Callable[[Any, jax.Array], Any]
) -> Callable[[np.ndarray], Any]:
  """Compiles a function of variables and images for any number of images."""
  compiled = jax.jit(compute)
  return lambda images: batches.apply(
    lambda x: compiled(restored.variables, x),
    images,
    restored.config.sample.batch_size,
    restored.mesh,
  )
