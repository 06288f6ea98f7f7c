"""The protocol that stands with every figure.

It says how many images were measured, how they were drawn and by which weights,
what they were compared with, and in the features of which network.
"""

import hashlib
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

import hatebm_jax
from hatebm_jax import data, sample
from hatebm_jax.evaluation import preset
from hatebm_jax.run import files


def of_run(restored: sample.Restored) -> dict[str, Any]:
  """Returns how the images of a run are drawn."""
  return sample.settings(restored) | {
    "dtype": restored.config.model.dtype,
    "matmul_precision": jax.config.jax_default_matmul_precision or "default",
    "config_changes": list(restored.changes) or None,
    "samples": None,
  }


def of_given(record: dict[str, str]) -> dict[str, Any]:
  """Returns which file or folder images were read from.

  Args:
    record: Record of the file or folder.
  """
  return {
    "checkpoint_step": None,
    "weights": None,
    "seed": None,
    "dtype": None,
    "matmul_precision": None,
    "config_changes": None,
    "langevin": None,
    "init_scale_z": None,
    "init_scale_y": None,
    "samples": record,
  }


def file_record(path: epath.PathLike) -> dict[str, str]:
  """Returns the name of a file and its SHA-256."""
  return {"file": files.as_path(path).name, "sha256": files.sha256(path)}


def images_record(name: str, images: np.ndarray) -> dict[str, str]:
  """Returns the name of a folder and the SHA-256 of its images.

  Args:
    name: Name of the folder.
    images: Decoded images in the order of their names, uint8
      `[n, height, width, channels]`.
  """
  return {"file": name, "sha256": hashlib.sha256(images).hexdigest()}


def of_data(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns what images are compared with, as far as the config says it."""
  per_repeat = preset.is_paper(config)
  return {
    "preset": config.metrics.protocol,
    "data": config.data.source,
    "split": None,
    "source": None,
    "split_images": None,
    "num_reference": None,
    "references": f"{'new' if per_repeat else 'the same'} in each repeat",
    "image_size": config.data.image_size,
    "channels": config.data.channels,
    "decoder": data.decoder(config.data),
    "resize": "images of another size: centre square, bilinear with antialias",
    "quantised": "uint8, after clip and round",
    "network": None,
    "network_sha256": None,
    "statistics": None,
    "hatebm_jax": hatebm_jax.__version__,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }
