"""Features of the Inception network of 2015, in which FID is measured.

The package does not ship the weights because they are 95 MB large and have
another licence. `load` says where they are published.
"""

import os
from typing import Any

import jax
import numpy as np

from hatebm_jax import convert, errors
from hatebm_jax.metrics import batches
from hatebm_jax.models.inception import Inception, preprocess
from hatebm_jax.run import files

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
    path: Path of a .pth of the usual tools, or of the .npz that
      `hatebm_jax.convert` made from it.

  Raises:
    ConfigError: If the file does not exist. The message says where it is
      published.
    ConvertError: If the file is damaged or belongs to another network.
  """
  if not files.as_path(path).is_file():
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
  with files.local_copy(path) as file:
    return convert.from_inception(file)[1]


@jax.jit
def outputs(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns features `[n, 2048]` and logits `[n, 1008]`.

  Args:
    variables: Variables that `load` returns.
    images: Images, uint8 `[n, height, width, 3]`.
  """
  # TPUs would otherwise multiply in bfloat16, and GPUs in TF32.
  with jax.default_matmul_precision("highest"):
    return Inception().apply(variables, preprocess(images))


def features_and_logits(
  variables: Any, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns features `[n, 2048]` and logits `[n, 1008]`, float32.

  Args:
    variables: Variables that `load` returns.
    images: Images of any size, uint8 `[n, height, width, 3]`.

  Raises:
    ValueError: If the images are not uint8 colour images.
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
  """Returns features, float32 `[n, 2048]`.

  Args:
    variables: Variables that `load` returns.
    images: Images of any size, uint8 `[n, height, width, 3]`.

  Raises:
    ValueError: If the images are not uint8 colour images.
  """
  return features_and_logits(variables, images)[0]
