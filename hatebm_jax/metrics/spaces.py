"""The network in whose features a run's images are measured."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hatebm_jax import errors
from hatebm_jax.metrics import batches, digits_network, inception, resnet10


class Space(NamedTuple):
  """A network, and what a Frechet distance in its features is called.

  Attributes:
    name: `FID`, `FD-ResNet10` or `FD-digits`. Distances in different spaces do
      not compare.
    dim: number of features.
    outputs: uint8 images `[n, height, width, channels]` -> features `[n, dim]`
      and logits `[n, num_classes]`, float32; jitted, on the devices.
    weights: file of its weights.
    batch_size: images at a time.
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


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns a file's SHA-256, for the record."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def exists(config: ml_collections.ConfigDict) -> bool:
  """Says whether there is a space for a run's images."""
  data = config.data
  shape = (data.image_size, data.image_size, data.channels)
  offline = data.source == "digits" or shape == resnet10.IMAGE_SHAPE
  return bool(config.metrics.inception) or offline


def choose(config: ml_collections.ConfigDict) -> Space:
  """Returns the space for a run's images.

  That is the Inception network of 2015 where `config.metrics.inception` names
  its weights; without them the small network that ships with the package for
  digits and for colour images of 32 pixels.

  Raises:
    ConfigError: if there is none, or the weights cannot be used.
  """
  data = config.data
  if config.metrics.inception:
    if data.channels != 3:
      raise errors.ConfigError(
        f"config.metrics.inception={config.metrics.inception!r}: expected "
        f"colour images, found config.data.channels={data.channels}. Leave it "
        "empty for these."
      )
    path = pathlib.Path(config.metrics.inception)
    outputs = functools.partial(inception.outputs, inception.load(path))
    return _space(inception, outputs, path)
  if data.source == "digits":
    return _space(
      digits_network, digits_network.outputs, digits_network.WEIGHTS
    )
  if exists(config):
    return _space(resnet10, resnet10.outputs, resnet10.WEIGHTS)
  raise errors.ConfigError(
    f"config.data.source={data.source!r} of {data.image_size} pixels: no "
    "network for these ships with the package. FID needs the Inception network "
    f"of 2015: --config.metrics.inception=FILE. {inception.WHERE}"
  )


def _space(network: Any, outputs: Callable, weights: pathlib.Path) -> Space:
  """Returns the space of a module of metrics/."""
  return Space(
    network.NAME, network.NUM_FEATURES, outputs, weights, network.BATCH_SIZE
  )
