"""Measures a trained run, or given images, without writing anything."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hatebm_jax import data, errors, sample
from hatebm_jax.evaluation import (
  checks,
  given_images,
  image_quality,
  long_chains,
  out_of_distribution,
  preset,
  protocol,
)
from hatebm_jax.metrics import feature_spaces, inception
from hatebm_jax.metrics.moments import Moments

# Number of training images among which the nearest to a sample are looked for.
_MAX_NEIGHBOURS = 50_000


class Result(NamedTuple):
  """What an evaluation found.

  Attributes:
    figures: All figures and their protocol, the content of evaluation.json.
    pictures: Pictures by name, uint8 `[height, width, channels]`.
    moments: Moments of the reference images' features; None if nothing was
      compared with reference images, or if their moments came from a file.
  """

  figures: dict[str, Any]
  pictures: dict[str, np.ndarray]
  moments: Moments | None


def evaluate(
  restored: sample.Restored,
  drawn: sample.Drawn | None = None,
  note: Callable[[Result], None] = lambda result: None,
) -> Result:
  """Measures a trained run.

  Images are drawn and compared with reference images. If the run has a hat, its
  energies are used to detect out-of-distribution images and parallel chains are
  run, as `config.ood` and `config.chains` ask.

  If one of these parts fails, the others are measured all the same. `failed` in
  the figures names the part and what happened, and the error is raised at the
  end.

  Args:
    restored: Run that `sample.restore` returns.
    drawn: Images that `sample.draw(restored)` returns; None draws them here.
      The protocol of the paper draws its own.
    note: Function that gets the result so far after each part, so that what is
      measured can be kept when a later part fails.

  Raises:
    ConfigError: If there is no network to measure these images in and the run
      has no hat, or a field of the config cannot be used.
    DataError: If the reference images cannot be read.
  """
  start = time.perf_counter()
  space = checks.check(restored.config, restored.networks.hat is not None)
  restored, drawn = _by_protocol(restored, drawn)
  found = _Found(restored, drawn, space)
  failures = []
  for name, measure in found.parts().items():
    try:
      measure()
    except Exception as error:
      # A message of XLA's may have thousands of lines.
      message = " ".join(str(error)[:1000].split()) or type(error).__name__
      found.figures.setdefault("failed", {})[name] = message
      failures.append(error)
    note(_finish(start, found.figures, found.pictures, found.reference))
    # Several processes must stay together.
    if failures and jax.process_count() > 1:
      break
  if failures:
    raise failures[0]
  return _finish(start, found.figures, found.pictures, found.reference)


def _by_protocol(
  restored: sample.Restored, drawn: sample.Drawn | None
) -> tuple[sample.Restored, sample.Drawn | None]:
  """Returns a run with the fields of its protocol, which it prints."""
  config = preset.apply(restored.config)
  if config is restored.config:
    return restored, drawn
  if (line := preset.changes(restored.config, config)) and not (
    jax.process_index()
  ):
    print(line, flush=True)
  return restored._replace(config=config), None


class _Found:
  """What an evaluation has found so far, and the parts that add to it.

  Attributes:
    figures: Figures and their protocol.
    pictures: Pictures by name.
    reference: Reference images; None as long as none are measured.
  """

  def __init__(
    self,
    restored: sample.Restored,
    drawn: sample.Drawn | None,
    space: feature_spaces.Space | None,
  ):
    self._restored, self._drawn, self._space = restored, drawn, space
    record = protocol.of_run(restored) | protocol.of_data(restored.config)
    self.figures = {"protocol": record, "sets": {}}
    self.pictures = {}
    self.reference = None

  def parts(self) -> dict[str, Callable[[], None]]:
    """Returns the parts that the config asks for, by name, in their order."""
    config = self._restored.config
    has_hat = self._restored.networks.hat is not None
    wanted = {
      "images": image_quality.has_network(config) or not has_hat,
      "ood": has_hat and config.ood.sets,
      "chains": has_hat and config.chains.num_chains,
    }
    return {name: getattr(self, name) for name in wanted if wanted[name]}

  def images(self) -> None:
    """Draws images and measures them against reference images."""
    config = self._restored.config
    self.reference = image_quality.load_reference(config, self._space)
    found = measure_images(self._restored, self.reference, self._drawn)
    found["sets"] |= image_quality.held_out(config, self.reference)
    self.figures |= found

  def ood(self) -> None:
    """Tells out-of-distribution images from those of the run's data."""
    self.figures["ood"], pictures = out_of_distribution.measure(self._restored)
    self.pictures |= pictures

  def chains(self) -> None:
    """Runs parallel chains."""
    config = self._restored.config
    images = data.load_images(config.data, "train", _MAX_NEIGHBOURS)
    distance = self.reference.distance if self.reference else None
    self.figures["chains"], pictures = long_chains.measure(
      self._restored, images, distance
    )
    self.pictures |= pictures


def measure_images(
  restored: sample.Restored,
  reference: image_quality.Reference,
  drawn: sample.Drawn | None = None,
) -> dict[str, Any]:
  """Draws the images of a run and measures them.

  Args:
    restored: Run with the fields that its protocol sets.
    reference: Reference of the first repeat.
    drawn: Images of the first repeat; None draws them here.

  Returns:
    `protocol` and `sets` of evaluation.json, without the held-out images.
  """
  config = restored.config
  # Without chains, these are the same set.
  kind = sample.kind(restored)

  def draw(repeat):
    given = drawn if repeat == 0 else None
    for batch in [given] if given else sample.batches(restored, repeat):
      yield {kind: batch.samples, "generator": batch.generated}

  def reference_of(repeat):
    if not repeat or not preset.is_paper(config):
      return reference
    return image_quality.other_reference(config, reference, repeat)

  found = image_quality.measure_repeats(config, draw, reference_of)
  counts = config.sample.num_images, config.metrics.repeats
  return _with_protocol(found, protocol.of_run(restored), *counts)


def evaluate_file(config: ml_collections.ConfigDict) -> Result:
  """Measures the images in `config.metrics.samples`, a file or a folder.

  Args:
    config: Config of the command.

  Raises:
    ConfigError: If there is no network to measure these images in, the images
      do not have the size of the reference images, or the file, the folder or
      a field of the config cannot be used.
    DataError: If the reference images cannot be read.
  """
  start = time.perf_counter()
  config = preset.apply(config)
  space = image_quality.choose_space(config)
  given = given_images.read(config)
  _check_given(config, given.images, space)
  reference = image_quality.load_reference(config, space)
  figures = image_quality.measure_sets(
    config, {"samples": [given.images]}, reference
  )
  record = protocol.of_given(given.protocol)
  figures = _with_protocol(figures, record, len(given.images), 1)
  height, width = given.images.shape[1:3]
  size = height if height == width else [height, width]
  figures["protocol"]["image_size"] = size
  return _finish(start, figures, {}, reference)


def _check_given(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  space: feature_spaces.Space,
) -> None:
  """Refuses given images that cannot be compared with the reference."""
  field = f"config.metrics.samples={config.metrics.samples!r}"
  checks.check_count(len(images), field)
  expected = image_quality.image_shape(config.data)
  # The file does not say which size its images had. Inception takes any size.
  is_free = config.metrics.statistics and space.name == inception.NAME
  if images.shape[1:] != expected and not is_free:
    raise errors.ConfigError(
      f"{field}: expected images of the size of the reference images, "
      f"{expected} (height, width, channels), found {images.shape[1:]}. Resize "
      "them, or set config.data.image_size to their size."
    )


def _finish(
  start: float,
  figures: dict[str, Any],
  pictures: dict[str, np.ndarray],
  reference: image_quality.Reference | None,
) -> Result:
  """Returns the result with the seconds that it took."""
  figures = figures | {"seconds": round(time.perf_counter() - start, 3)}
  from_file = figures["protocol"]["statistics"] is not None
  moments = reference.found.moments if reference and not from_file else None
  return Result(figures, pictures, moments)


def _with_protocol(
  figures: dict[str, Any], record: dict[str, Any], num_images: int, repeats: int
) -> dict[str, Any]:
  """Adds to figures the protocol of the images, `record`, and their number."""
  counts = {"num_images": num_images, "repeats": repeats}
  return figures | {"protocol": record | counts | figures["protocol"]}
