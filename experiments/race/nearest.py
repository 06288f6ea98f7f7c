"""How near samples are to the images that a run was trained on."""

import pathlib

import numpy as np

from hatebm_jax import data
from hatebm_jax.metrics import chain_mixing
from hatebm_jax.run import npz, workdir


def measure(samples: pathlib.Path, path: pathlib.Path) -> float:
  """Returns a ratio of two median distances, in pixels.

  It is the median distance from a sample to the nearest training image, over
  that from a held-out image. A ratio far below 1 means copies.

  Args:
    samples: File of samples.
    path: Workdir of the run that drew them.
  """
  config = workdir.read_config(path)
  train, test = (
    data.load_all(data.open_source(config.data, split))
    for split in ("train", "test")
  )
  median = lambda images: np.median(
    chain_mixing.nearest(images, train, 1).distances
  )
  drawn = npz.all_arrays(samples)["images"]
  return float(median(drawn) / median(test[: len(drawn)]))
