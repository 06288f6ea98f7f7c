"""Detects out-of-distribution (OOD) images by the energy of a trained hat."""

import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from matplotlib import figure

from hatebm_jax import data, errors, pixels, sample
from hatebm_jax.metrics import batches, ood

HISTOGRAM = "evaluation_ood.png"
_BATCH_SIZE = 250
_BINS = 60


class Pair(NamedTuple):
  """Two sets of images of equal treatment.

  Attributes:
    images_in: uint8 `[n, height, width, channels]`.
    images_out: uint8 `[m, height, width, channels]`.
    names: of the two.
    resized_to: pixels; the lower resolution of the two, or that of the hat.
  """

  images_in: np.ndarray
  images_out: np.ndarray
  names: tuple[str, str]
  resized_to: int


def measure(restored: sample.Restored, path: pathlib.Path) -> dict[str, Any]:
  """Measures how well the energy tells `config.ood.sets` from the test split.

  The score is H(x): low in the distribution. Both sets are brought to the lower
  resolution of the two first: resizing one side alone would be what is
  detected.

  Args:
    restored: a run with a hat.
    path: the workdir; a plot of the energies is written into it.

  Returns:
    `ood` of evaluation.json.

  Raises:
    ConfigError: if a setting cannot be used.
    DataError: if a set cannot be read.
  """
  settings = restored.config.ood
  _check(settings)
  sets, energies = {}, {}
  for source in settings.sets:
    pair = load_pair(restored.config, source)
    scores = [energy(restored, x) for x in (pair.images_in, pair.images_out)]
    rest = settings.bootstraps, restored.config.seed
    found = ood.record(ood.detection(*scores, *rest))
    energies[pair.names[1]] = scores
    sets[pair.names[1]] = {
      "num_in": len(pair.images_in),
      "num_out": len(pair.images_out),
      "resized_to": pair.resized_to,
      "scores": {
        "energy": {"higher_is_out": True, **found},
        **ood.baselines(pair.images_in, pair.images_out, *rest),
      },
    }
  if jax.process_index() == 0:
    plot(energies, path / HISTOGRAM)
  return {"in_distribution": pair.names[0], "sets": sets}


def _check(settings: ml_collections.ConfigDict) -> None:
  for name in ("num_images", "bootstraps"):
    if settings[name] < 1:
      raise errors.ConfigError(
        f"config.ood.{name}={settings[name]}: expected 1 or more."
      )


def load_pair(config: ml_collections.ConfigDict, source: str) -> Pair:
  """Reads in-distribution test images and OOD images, treated alike.

  Args:
    config: of the run.
    source: of the OOD images, as in `config.data.source`; their test split, or
      all of them where they have none.
  """
  inside, outside = (config.data.copy_and_resolve_references() for _ in "io")
  outside.source = source
  splits = "test", _split(outside)
  both = list(zip((inside, outside), splits, strict=True))
  size = min(config.data.image_size, *(data.native_size(*x) for x in both))
  both_images, names = [], []
  for settings, split in both:
    settings.image_size = size
    opened = data.open_split(settings, split)
    chosen = data.choose_images(opened, config.ood.num_images)
    both_images.append(data.resize(chosen, config.data.image_size))
    names.append(opened.name)
  return Pair(*both_images, tuple(names), size)


def _split(settings: ml_collections.ConfigDict) -> str:
  """Returns `test`, or `train` where a source has no other images."""
  try:
    data.native_size(settings, "test")
  except data.DataError:
    return "train"
  return "test"


def energy(restored: sample.Restored, shown: np.ndarray) -> np.ndarray:
  """Returns H, float32 `[n]`, of uint8 images, computed over all devices."""
  hat, (variables, _) = restored.networks.hat, restored.variables
  call = jax.jit(lambda v, x: hat.apply(v, pixels.to_float(x)))
  return batches.apply(
    lambda x: call(variables, x), shown, _BATCH_SIZE, restored.mesh
  )


def plot(energies: dict[str, list[np.ndarray]], file: pathlib.Path) -> None:
  """Draws histograms of the energies, a panel an OOD set.

  Args:
    energies: by the name of the OOD set, those of both sets.
    file: PNG to write.
  """
  picture = figure.Figure(figsize=(6, 3 * len(energies)), layout="constrained")
  axes = picture.subplots(len(energies), squeeze=False)[:, 0]
  for ax, (name, (inside, outside)) in zip(axes, energies.items(), strict=True):
    both = np.concatenate([inside, outside])
    bins = np.linspace(*np.quantile(both, (0.001, 0.999)), _BINS)
    for values, label in ((inside, "in-distribution"), (outside, name)):
      ax.hist(values, bins, density=True, alpha=0.6, label=label)
    ax.set_xlabel("energy H(x)")
    ax.set_yticks([])
    ax.legend(fontsize=8)
  picture.savefig(file, dpi=100)


def table(found: dict[str, Any]) -> list[str]:
  """Lays out what `measure` returns, for people."""
  names = {"energy": "energy", **{name: name for name in ood.BASELINES}}
  lines = [
    f"AUROC of {found['in_distribution']} against (95 % interval); trivial "
    "scores in their better direction:"
  ]
  for name, one in found["sets"].items():
    cells = []
    for key in names:
      auroc = one["scores"][key]["auroc"]
      cell = f"{key.replace('_', ' ')} {auroc['value']:.3f}"
      if key == "energy":
        cell += f" ({auroc['low']:.3f} to {auroc['high']:.3f})"
      cells.append(cell)
    lines.append(f"  {name} ({one['resized_to']} pixels): " + ", ".join(cells))
  return lines
