"""Golden samples: a few samples of a release that others can draw again.

`golden.json` holds the SHA-256 of the images, the settings that drew them and
the platform. They are drawn on one device in one batch. Other processors round
in another way, so the same digest is to be expected only on a like platform.
"""

import hashlib
import platform
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

import hatebm_jax
from hatebm_jax import images as images_lib
from hatebm_jax import sample, sharding
from hatebm_jax.run import files, weights, workdir

FILE = "golden.json"
GRID = "samples.png"
NUM_IMAGES = 16
_ADVICE = "Copy the release again, or make it again."


def draw(path: epath.Path) -> tuple[sample.Restored, np.ndarray]:
  """Draws the golden samples of a release.

  Args:
    path: Path of the release.

  Returns:
    The release on one device, and the samples, uint8
    `[16, height, width, channels]`.
  """
  config = workdir.read_config(path)
  config.sample.num_images = config.sample.batch_size = NUM_IMAGES
  config.sample.weights = "raw"
  restored = sample.restore(config, path)
  device = jax.devices()[0]
  restored = restored._replace(
    mesh=sharding.make_mesh([device]),
    variables=jax.device_put(restored.variables, device),
  )
  return restored, sample.draw(restored).samples


def write(path: epath.Path) -> dict[str, Any]:
  """Draws the golden samples, and writes their record and their grid.

  Args:
    path: Path of the folder that holds the config and the weights.

  Returns:
    The content of `golden.json`.
  """
  restored, images = draw(path)
  record = {
    "num_images": NUM_IMAGES,
    "images_sha256": _digest(images),
    "settings": sample.settings(restored),
    "platform": _platform(),
  }
  files.write_png(path / GRID, images_lib.grid(images))
  files.write_json(path / FILE, record, indent=2)
  return record


def check(path: epath.PathLike) -> tuple[bool, str]:
  """Draws the golden samples of a release again and compares them.

  Args:
    path: Path of the release.

  Returns:
    Whether they are equal, and a line that says so or how they differ.

  Raises:
    FileError: If `golden.json` is missing or damaged.
    ReleaseError: If the weights are not what was written.
  """
  path = files.as_path(path)
  record = files.read_json(path / FILE, _ADVICE, dict)
  expected, made_on = record.get("images_sha256"), record.get("platform")
  if not isinstance(expected, str) or not isinstance(made_on, dict):
    raise files.FileError(
      f"{path / FILE}: expected the SHA-256 of samples and their platform, "
      f"found something else. {_ADVICE}"
    )
  weights.opened(path).close()  # A folder without weights is reported here.
  _, images = draw(path)
  if _digest(images) == expected:
    return True, f"{path}: the {NUM_IMAGES} golden samples are equal."
  return False, (
    f"{path}: the {NUM_IMAGES} golden samples are not equal."
    f"{_difference(path, images)} They were made on {_shown(made_on)}. This "
    f"is {_shown(_platform())}."
  )


def _digest(images: np.ndarray) -> str:
  return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def _platform() -> dict[str, str]:
  """Returns what samples may depend on besides the settings."""
  return {
    "device": jax.devices()[0].device_kind,
    "system": f"{platform.system()} {platform.machine()}",
    "jax": jax.__version__,
    "hatebm_jax": hatebm_jax.__version__,
  }


def _shown(made_on: dict[str, Any]) -> str:
  """Shows a platform, also one that a stranger has written."""
  parts = [f"{name} {value}" for name, value in made_on.items()]
  return " ".join(", ".join(parts)[:200].split())


def _difference(path: epath.Path, images: np.ndarray) -> str:
  """Says how far images are from the grid of a release, if there is one."""
  expected = images_lib.grid(images)
  try:
    with (
      files.open_binary(path / GRID) as file,
      Image.open(file, formats=["PNG"]) as picture,
    ):
      if picture.size != expected.shape[1::-1]:
        return ""
      found = np.asarray(picture).reshape(expected.shape)
  except (OSError, SyntaxError, ValueError):
    return ""
  largest = np.abs(np.int16(found) - np.int16(expected)).max()
  return f" The largest difference of a pixel is {largest} of 255."
