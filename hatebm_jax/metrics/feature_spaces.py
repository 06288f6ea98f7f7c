"""Chooses the network in whose features images are measured."""

import functools
import pathlib
import types
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from hatebm_jax import errors
from hatebm_jax.metrics import (
  batches,
  digits_network,
  efficientnet,
  inception,
  resnet10,
)
from hatebm_jax.run import files

EFFICIENTNET = "efficientnet_lite0"


class Space(NamedTuple):
  """A network whose features are compared.

  Attributes:
    name: Name of a Frechet distance in its features: `FID`, `FD-ResNet10`,
      `FD-digits` or `FD-EfficientNet-Lite0`. Distances in different spaces
      cannot be compared.
    dim: Number of features.
    outputs: Jitted function from uint8 images `[n, height, width, channels]` to
      features `[n, dim]` and logits `[n, num_classes]`, float32.
    weights: Path of the file with its weights.
    batch_size: Number of images in a batch.
  """

  name: str
  dim: int
  outputs: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
  weights: pathlib.Path
  batch_size: int

  def stream(
    self, images: Iterable[np.ndarray]
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields features and logits of batches of at most `batch_size` images."""
    return batches.stream(self.outputs, images, self.batch_size)


def exists(
  source: str,
  image_shape: tuple[int, int, int],
  weights: str = "",
  network: str = "automatic",
) -> bool:
  """Returns whether there is a network for these images; see `choose`."""
  is_packaged = source == "digits" or image_shape == resnet10.IMAGE_SHAPE
  return bool(weights) or network == EFFICIENTNET or is_packaged


def choose(
  source: str,
  image_shape: tuple[int, int, int],
  weights: str = "",
  network: str = "automatic",
) -> Space:
  """Returns the space in which images are measured.

  This is EfficientNet-Lite0 if `network` says so. If it does not and `weights`
  names a file, this is the Inception network of 2015. Otherwise it is the small
  network that ships with the package for digits or for colour images of 32
  pixels.

  Args:
    source: Source of the images, `config.data.source`.
    image_shape: Height, width and channels of the images.
    weights: Path of the weights of the Inception network,
      `config.metrics.inception`, or an empty string.
    network: Name of the network, `config.metrics.network`.

  Raises:
    ConfigError: If there is no network for these images, or the weights are
      missing or cannot be used.
  """
  height, _, channels = image_shape
  if network == EFFICIENTNET:
    return _efficientnet(weights)
  if weights:
    return _inception(weights, channels)
  if source == "digits":
    return _space(
      digits_network, digits_network.outputs, digits_network.WEIGHTS
    )
  if exists(source, image_shape):
    return _space(resnet10, resnet10.outputs, resnet10.WEIGHTS)
  raise errors.ConfigError(
    f"config.data.source={source!r} with images of {height} pixels and "
    f"{channels} channels: no network for these ships with the package. FID "
    "needs the Inception network of 2015: --config.metrics.inception=FILE. "
    f"{inception.WHERE} EfficientNet-Lite0 measures any images: "
    f"--config.metrics.network={EFFICIENTNET}."
  )


def _efficientnet(inception_weights: str) -> Space:
  """Returns the space of EfficientNet-Lite0."""
  if inception_weights:
    raise errors.ConfigError(
      f"config.metrics.network={EFFICIENTNET!r} and config.metrics.inception="
      f"{inception_weights!r}: expected one network, found two. Leave one of "
      "the fields out."
    )
  path = efficientnet.weights()
  outputs = functools.partial(efficientnet.outputs, efficientnet.load(path))
  return _space(efficientnet, outputs, path)


def _inception(weights: str, channels: int) -> Space:
  """Returns the space of the Inception network for images with channels."""
  if channels != 3:
    raise errors.ConfigError(
      f"config.metrics.inception={weights!r}: expected colour images, found "
      f"config.data.channels={channels}. Leave the field empty for these "
      "images."
    )
  path = files.as_path(weights)
  outputs = functools.partial(inception.outputs, inception.load(path))
  return _space(inception, outputs, path)


def _space(
  network: types.ModuleType, outputs: Callable, weights: pathlib.Path
) -> Space:
  """Returns the space of a module that defines a network."""
  return Space(
    network.NAME, network.NUM_FEATURES, outputs, weights, network.BATCH_SIZE
  )
