"""Features of the Inception network of 2015: the space that FID is measured in.

Its weights are not shipped: 95 MB under another licence. `load` says where they
are published.
"""

import os
from typing import Any

import jax
import numpy as np

from hatebm_jax import convert, errors
from hatebm_jax.metrics import batches
from hatebm_jax.models.inception import Inception, preprocess

NAME = "FID"
NUM_FEATURES = 2048
BATCH_SIZE = 50
WHERE = (
  "Get pt_inception-2015-12-05-6726825d.pth from the releases of "
  "mseitzer/pytorch-fid on GitHub, or "
  "weights-inception-2015-12-05-6726825d.pth from those of "
  "toshas/torch-fidelity. `python -m hatebm_jax.convert inception SOURCE "
  "OUT.npz` makes an .npz of either."
)


def load(path: str | os.PathLike[str]) -> Any:
  """Reads the network's variables.

  Args:
    path: a .pth of the usual tools, or the .npz that `hatebm_jax.convert` made
      of it.

  Raises:
    ConfigError: if there is no such file; the message says where it is
      published.
    ConvertError: if the file is damaged or of another network.
  """
  if not os.path.isfile(path):
    raise errors.ConfigError(
      f"{os.fspath(path)!r}: expected the weights of the Inception network, "
      f"found no file. {WHERE}"
    )
  if os.fspath(path).endswith(".npz"):
    module, variables = convert.load_npz(path)
    if not isinstance(module, Inception):
      raise convert.ConvertError(
        f"{path}: expected an Inception network, found a "
        f"{type(module).__name__}. {WHERE}"
      )
    return variables
  return convert.from_inception(path)[1]


@jax.jit
def outputs(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Features `[n, 2048]` and logits `[n, 1008]` of uint8 `[n, h, w, 3]`."""
  # Without this, TPUs multiply in bfloat16 and GPUs in TF32.
  with jax.default_matmul_precision("highest"):
    return Inception().apply(variables, preprocess(images))


def features_and_logits(
  variables: Any, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns features `[n, 2048]` and logits `[n, 1008]`, float32.

  Args:
    variables: from `load`.
    images: uint8 `[n, height, width, 3]`, of any size.

  Raises:
    ValueError: if the images are no uint8 colour images.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
    raise ValueError(
      "expected uint8 images [n, height, width, 3], found "
      f"{images.dtype} {images.shape}."
    )
  return batches.apply(
    lambda batch: outputs(variables, batch), images, BATCH_SIZE
  )


def features(variables: Any, images: np.ndarray) -> np.ndarray:
  """Returns features, float32 `[n, 2048]`; see `features_and_logits`."""
  return features_and_logits(variables, images)[0]
