"""The Frechet distance of all checkpoints of a run, to choose one of them.

Each checkpoint is measured with its raw and with its averaged weights. The
curve is a dictionary:

- `points`: A list by training step. A point holds `step`, `weights`,
  `weights_sha256`, and `sets` and `protocol` as in evaluation.json.
- `best`: `step`, `weights`, `frechet_distance`, `network`, `num_images` and
  `num_reference` of the point with the smallest mean distance.

The distance of the best point is the smallest of several: measure that
checkpoint again, with other images, before its figure is reported.
"""

import json
from collections.abc import Callable, Collection
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from hatebm_jax import sample, sharding
from hatebm_jax.evaluation import (
  checks,
  compute,
  image_quality,
  plots,
  preset,
  protocol,
)
from hatebm_jax.run import checkpoint, workdir

_WEIGHTS = ("raw", "averaged")
# Entries of a protocol that differ between the points of one curve.
_OF_POINT = ("checkpoint_step", "weights", "config_changes")


def measure_checkpoints(
  config: ml_collections.ConfigDict,
  path: epath.PathLike,
  known: dict[str, Any] | None = None,
  note: Callable[[dict[str, Any]], None] = lambda curve: None,
  given: Collection[str] = (),
) -> dict[str, Any]:
  """Measures all checkpoints of a run.

  Args:
    config: Config of the command.
    path: Path of the workdir.
    known: Curve that was measured before. Its points are kept if they have the
      same protocol and the same weights; None: there is none.
    note: Function that gets the curve so far, after each point.
    given: Names of the fields that the command line sets.

  Returns:
    The curve; the docstring of the module describes it.

  Raises:
    ConfigError: If there is no network to measure the images in, or a field
      cannot be used.
    WorkdirError: If the workdir holds no checkpoint.
  """
  steps = checkpoint.steps(path)
  if not steps:
    raise workdir.WorkdirError(
      f"{path} holds no checkpoint: expected a trained run. Train it first."
    )
  old = {(x["step"], x["weights"]): x for x in (known or {}).get("points", ())}
  reference = points = None
  for step in steps:
    for weights in _WEIGHTS:
      restored = _restore(config, path, given, step, weights)
      if reference is None:
        has_hat = restored.networks.hat is not None
        space = checks.check(restored.config, has_hat)
        reference = image_quality.load_reference(restored.config, space)
      expected = _record(restored, reference)
      if points is None:
        points = _of_same_protocol(old, expected)
      found = old.get((step, weights))
      (missing,) = sharding.any_process(not _is_same(found, expected))
      if missing:
        measured = compute.measure_images(restored, reference)
        found = expected | {"sets": measured["sets"]}
      points[step, weights] = found
      note(_curve(points))
  return _curve(points)


def _restore(config, path, given, step, weights) -> sample.Restored:
  """Restores one checkpoint, with the fields that the protocol sets."""
  config = config.copy_and_resolve_references()
  # The copy has the text `all` there, and a number takes its place.
  with config.unlocked(), config.ignore_type():
    config.sample.checkpoint, config.sample.weights = step, weights
  restored = sample.restore(config, path, given=given)
  applied = preset.apply(restored.config).copy_and_resolve_references()
  with applied.unlocked():
    applied.sample.weights = weights
  return restored._replace(config=applied)


def _record(
  restored: sample.Restored, reference: image_quality.Reference
) -> dict[str, Any]:
  """Returns a point without its figures, as JSON gives it back."""
  counts = {
    "num_images": restored.config.sample.num_images,
    "repeats": restored.config.metrics.repeats,
  }
  record = protocol.of_run(restored) | counts | reference.protocol
  point = {
    "step": restored.step,
    "weights": restored.config.sample.weights,
    "weights_sha256": sample.weights_digest(restored),
    "protocol": record,
  }
  return json.loads(json.dumps(point))


def _is_same(found: dict[str, Any] | None, expected: dict[str, Any]) -> bool:
  """Returns whether a point was measured as the command would measure it."""
  return found is not None and all(
    found.get(name) == value for name, value in expected.items()
  )


def _of_same_protocol(
  old: dict[tuple[int, str], dict[str, Any]], expected: dict[str, Any]
) -> dict[tuple[int, str], dict[str, Any]]:
  """Returns old points of the same protocol, also of deleted checkpoints."""
  shared = lambda record: {
    name: value for name, value in record.items() if name not in _OF_POINT
  }
  return {
    key: point
    for key, point in old.items()
    if shared(point["protocol"]) == shared(expected["protocol"])
  }


def _curve(points: dict[tuple[int, str], dict[str, Any]]) -> dict[str, Any]:
  """Returns the curve of points by step and weights."""
  ordered = [points[key] for key in sorted(points, key=_order)]
  best = min(ordered, key=lambda point: distance(point)["mean"])
  record = best["protocol"]
  return {
    "best": {
      "step": best["step"],
      "weights": best["weights"],
      "frechet_distance": distance(best)["mean"],
      "network": record["network"],
      "num_images": record["num_images"],
      "num_reference": record["num_reference"],
    },
    "points": ordered,
  }


def _order(key: tuple[int, str]) -> tuple[int, int]:
  return key[0], _WEIGHTS.index(key[1])


def distance(point: dict[str, Any]) -> dict[str, Any]:
  """Returns mean, spread and values of a point's Frechet distance.

  They are those of the samples, or of the generator's images in a run without
  chains.
  """
  sets = point["sets"]
  name = next((x for x in ("hat", "ddls") if x in sets), "generator")
  return sets[name]["frechet_distance"]


def picture(curve: dict[str, Any]) -> np.ndarray:
  """Returns the plot of a curve, uint8 `[height, width, 3]`."""
  points = [
    {"step": x["step"], "weights": x["weights"], **distance(x)}
    for x in curve["points"]
  ]
  best = curve["best"]
  against = f"{best['num_reference']:,} images" if best["num_reference"] else ""
  against = against or "moments of a file"
  name = f"{best['network']}, {best['num_images']:,} images against {against}"
  return plots.checkpoints(points, name)


def is_curve(found: Any) -> bool:
  """Returns whether JSON is a curve that `measure_checkpoints` returns."""
  try:
    return all(
      workdir.is_step(point["step"])
      and point["weights"] in _WEIGHTS
      and isinstance(point["protocol"], dict)
      and isinstance(distance(point)["mean"], float)
      for point in found["points"]
    )
  except (AttributeError, KeyError, TypeError):
    return False
