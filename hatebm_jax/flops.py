"""Counts by hand the arithmetic of the networks and of a training step.

Only convolutions and matrix products are counted. The counts follow from the
shapes in `models/hat.py` and `models/generator.py`; no compiler is asked. For
networks they are multiply-adds for one image. For the parts of a training step
they are FLOPs for the config's batch, 2 for each multiply-add.
"""

from typing import NamedTuple

import ml_collections

from hatebm_jax.models import generator as generator_lib
from hatebm_jax.models import hat as hat_lib

_GENERATOR_START = 4  # pixels, height and width of the first block's input


class Rules(NamedTuple):
  """The sizes at which layers are counted.

  The defaults are those of the packed form in `models/conv_packed.py` but for
  the edges: the up convolution there also computes a frame of one pixel around
  the small image.

  Attributes:
    pooled_at_full_size: True counts a pooled 3x3 convolution at the size before
      the pool. False counts it at a quarter of that.
    up_at_full_size: True counts an up-sampled 3x3 convolution at the size after
      the up. False counts it at a quarter of that, as a transposed convolution
      and a blur.
    shortcuts_at_full_size: True counts a 1x1 shortcut on the large side.
    padding: True counts the taps of a 3x3 convolution that meet its zero
      padding.
  """

  pooled_at_full_size: bool = False
  up_at_full_size: bool = False
  shortcuts_at_full_size: bool = False
  padding: bool = True


MINIMAL = Rules()
UP_AT_FULL_SIZE = Rules(up_at_full_size=True)
LITERAL = Rules(True, True, True)


def hat(
  image_size: int, width: int, channels: int = 3, rules: Rules = MINIMAL
) -> int:
  """Counts the multiply-adds of H for one image.

  Args:
    image_size: Height and width of the images in pixels.
    width: Base width of the network.
    channels: Number of channels of the images.
    rules: Sizes at which layers are counted.
  """
  module = hat_lib.make(image_size, width)
  total, size, features = 0, image_size, channels
  for i, out in enumerate(module.widths):
    down, stem = i < module.num_downs, i == 0
    small = size // 2 if down else size
    total += _conv3x3(size, features, out, rules)
    if not down or rules.pooled_at_full_size:
      total += _conv3x3(size, out, out, rules)
    else:
      total += 9 * small**2 * out * out
    if down or features != out:
      large = rules.shortcuts_at_full_size and not stem
      total += (size if large else small) ** 2 * features * out
    size, features = small, out
  return total + features


def generator(
  image_size: int,
  width: int,
  channels: int = 3,
  latent_size: int = 128,
  rules: Rules = MINIMAL,
) -> int:
  """Counts the multiply-adds of G for one image.

  Args:
    image_size: Height and width of the images in pixels.
    width: Base width of the network.
    channels: Number of channels of the images.
    latent_size: Number of elements of z.
    rules: Sizes at which layers are counted.
  """
  size, features = _GENERATOR_START, width
  total = latent_size * size**2 * features
  for out in generator_lib.make(image_size, width).widths:
    if rules.up_at_full_size:
      total += _conv3x3(2 * size, features, out, rules)
    else:
      total += 9 * size**2 * features * out
    total += _conv3x3(2 * size, out, out, rules)
    large = 2 if rules.shortcuts_at_full_size else 1
    total += (large * size) ** 2 * features * out
    size, features = 2 * size, out
  return total + _conv3x3(size, features, channels, rules)


def langevin_step(
  config: ml_collections.ConfigDict,
  joint: bool = False,
  rules: Rules = MINIMAL,
) -> int:
  """Counts the FLOPs of one Langevin step on the batch.

  The step computes H and its gradient in the image. The joint form does this
  twice, for z and for y, and also computes G and its gradient in z.

  Args:
    config: Config of the run.
    joint: True counts the joint form.
    rules: Sizes at which layers are counted.
  """
  evaluation = 2 * _hat(config, rules)
  if joint:
    evaluation = 2 * evaluation + 2 * _generator(config, rules)
  return 2 * config.train.batch_size * evaluation


def hat_update(
  config: ml_collections.ConfigDict, rules: Rules = MINIMAL
) -> int:
  """Counts the FLOPs of the hat's gradients on the real and the sampled batch.

  The update computes H and its gradients in activations and in kernels, but not
  in the images.

  Args:
    config: Config of the run.
    rules: Sizes at which layers are counted.
  """
  size, channels = config.data.image_size, config.data.channels
  stem = hat_lib.make(size, config.model.width).widths[0] * channels
  in_images = stem * ((size // 2) ** 2 + _taps(size, rules))
  image = 3 * _hat(config, rules) - in_images
  return 2 * 2 * config.train.batch_size * image


def generator_update(
  config: ml_collections.ConfigDict, rules: Rules = MINIMAL
) -> int:
  """Counts the FLOPs of the generator's gradients on a batch of the bank.

  The update computes G and its gradients in activations and in kernels, but not
  in z.

  Args:
    config: Config of the run.
    rules: Sizes at which layers are counted.
  """
  dense = config.model.latent_size * _GENERATOR_START**2 * config.model.width
  image = 3 * _generator(config, rules) - dense
  return 2 * config.train.batch_size * image


def training_step(
  config: ml_collections.ConfigDict, rules: Rules = MINIMAL
) -> int:
  """Counts the FLOPs of a training step of `objectives/synthesis.py`.

  The step computes G(z) once, the chains, and both updates.

  Args:
    config: Config of the run.
    rules: Sizes at which layers are counted.
  """
  start = 2 * config.train.batch_size * _generator(config, rules)
  chains = config.langevin.num_steps * langevin_step(config, rules=rules)
  updates = hat_update(config, rules) + generator_update(config, rules)
  return start + chains + updates


def _taps(size: int, rules: Rules) -> int:
  """Counts the taps of a padded 3x3 convolution over all pixels."""
  return 9 * size**2 if rules.padding else (3 * size - 2) ** 2


def _conv3x3(size: int, features: int, out: int, rules: Rules) -> int:
  return _taps(size, rules) * features * out


def _hat(config: ml_collections.ConfigDict, rules: Rules) -> int:
  return hat(
    config.data.image_size, config.model.width, config.data.channels, rules
  )


def _generator(config: ml_collections.ConfigDict, rules: Rules) -> int:
  return generator(
    config.data.image_size,
    config.model.width,
    config.data.channels,
    config.model.latent_size,
    rules,
  )
