"""Measures which changes of real images two feature spaces see.

python -m experiments.yardstick.measure FOLDER CACHE OUT.json

FOLDER holds train/CLASS/*.jpg, CIFAR-10 (JPEG). CACHE is a folder for features:
a command that was stopped goes on where it was.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from scipy import ndimage

from hatebm_jax.metrics import (
  batches,
  feature_spaces,
  frechet,
  kid,
  precision_recall,
)

_NUM_SPLITS = 20  # of real images into two halves
_NOISE = (8, 16, 32)  # standard deviation, grey levels
_BLUR = (0.5, 1.0, 2.0)  # standard deviation, pixels
_CLASSES = (5, 2, 1)  # of 10
_COPIES = (2, 5, 10, 25)  # of each image
_NETWORKS = ("automatic", feature_spaces.EFFICIENTNET)


class _Images:
  """The images of a folder, in a random order that is always the same."""

  def __init__(self, folder: pathlib.Path):
    names = sorted(path.name for path in (folder / "train").iterdir())
    rng = np.random.default_rng(0)
    self._paths = {}
    for name in names:
      paths = sorted((folder / "train" / name).glob("*.jpg"))
      self._paths[name] = [paths[i] for i in rng.permutation(len(paths))]

  def of_classes(self, num_classes: int, start: int, count: int) -> np.ndarray:
    """Returns images of the first classes, as many of each.

    Args:
      num_classes: Number of classes.
      start: Place of the first image within its class.
      count: Number of images of all classes together.

    Returns:
      Images, uint8 `[count, 32, 32, 3]`.
    """
    each = count // num_classes
    names = list(self._paths)[:num_classes]
    paths = [p for x in names for p in self._paths[x][start : start + each]]
    return np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])


def _noisy(images: np.ndarray, sigma: float) -> np.ndarray:
  noise = np.random.default_rng(0).normal(0, sigma, images.shape)
  return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
  x = ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0))
  return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _sets(
  images: _Images, count: int
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
  """Yields sets of `count` images. No other set has an image of `real`."""
  each = count // 10
  other = lambda: images.of_classes(10, each, count)
  yield "real", lambda: images.of_classes(10, 0, count)
  yield "other", other
  for noise, blur in zip(_NOISE, _BLUR, strict=True):
    yield f"noise {noise}", lambda x=noise: _noisy(other(), x)
    yield f"blur {blur}", lambda x=blur: _blurred(other(), x)
  for classes in _CLASSES:
    yield (
      f"classes {classes}",
      lambda x=classes: images.of_classes(x, each, count),
    )


def _features(
  space: feature_spaces.Space, images: Callable[[], np.ndarray], path
) -> np.ndarray:
  """Returns features of a set, from the cache if they are there."""
  if not path.exists():
    found, _ = batches.apply(space.outputs, images(), space.batch_size)
    np.save(path, found)
    print(path.stem, flush=True)
  return np.load(path)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and covariance of features."""
  x = features.astype(np.float64)
  return x.mean(0), np.cov(x, rowvar=False)


def _figures(real: np.ndarray, samples: np.ndarray) -> dict[str, float]:
  """Returns all figures of features of a set against those of real images."""
  return {
    "frechet_distance": frechet.distance(*_moments(real), *_moments(samples)),
    "kernel_distance": kid.discrepancy(real, samples),
    **precision_recall.measure(real, samples)._asdict(),
  }


def _floor(real: np.ndarray, other: np.ndarray) -> list[dict[str, float]]:
  """Returns the figures of random halves of real images against each other."""
  both, rows = np.concatenate([real, other]), []
  for seed in range(_NUM_SPLITS):
    order = np.random.default_rng(seed).permutation(len(both))
    halves = np.array_split(order, 2)
    rows.append(_figures(*(both[half] for half in halves)))
  return rows


def _ladders(features: dict[str, np.ndarray]) -> dict[str, list]:
  """Returns the figures of each ladder, from real images to the worst ones."""
  real, other = features["real"], features["other"]
  first = ["other images", _figures(real, other)]
  ladders = {
    f"{kind}, {unit}": [first]
    + [[value, _figures(real, features[f"{kind} {value}"])] for value in values]
    for kind, unit, values in (
      ("noise", "grey levels", _NOISE),
      ("blur", "pixels", _BLUR),
      ("classes", "of 10", _CLASSES),
    )
  }
  # Classes lie one after another, so that these are images of all classes.
  ladders["copies, of each image"] = [first] + [
    [k, _figures(real, np.repeat(other[::k], k, axis=0))] for k in _COPIES
  ]
  return ladders


def main() -> None:
  """Takes features, measures all sets and writes the figures as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("cache", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument(
    "--num_images",
    type=int,
    default=1_000,
    help="number of images of each set, a multiple of 50",
  )
  args = parser.parse_args()
  args.cache.mkdir(parents=True, exist_ok=True)
  images, found = _Images(args.folder), {}
  cached = lambda *x: args.cache / f"{' '.join(x)} {args.num_images}.npy"
  for network in _NETWORKS:
    space = feature_spaces.choose("folder", (32, 32, 3), network=network)
    features = {
      name: _features(space, x, cached(space.name, name))
      for name, x in _sets(images, args.num_images)
    }
    found[space.name] = {
      "floor": _floor(features["real"], features["other"]),
      "ladders": _ladders(features),
    }
  args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
