"""Reads the images that `config.metrics.samples` names, of any tool.

This is a folder of image files, or a file of NumPy: an .npy, or an .npz of this
package or of another tool. Formats are detected from the content.
"""

import functools
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from etils import epath

from hatebm_jax import data, errors, pixels
from hatebm_jax.evaluation import protocol
from hatebm_jax.run import files, npz

# Names of the images in an .npz, the first that is there: that of this package,
# and those of other tools.
_NAMES = ("images", "samples", "arr_0")
_NPY_MAGIC = b"\x93NUMPY"


class Given(NamedTuple):
  """Images that were drawn elsewhere.

  Attributes:
    images: Images, uint8 `[n, height, width, channels]`.
    protocol: Record of the file or folder, of its SHA-256, and of how numbers
      became pixels if they were not uint8.
  """

  images: np.ndarray
  protocol: dict[str, Any]


def read(config: ml_collections.ConfigDict) -> Given:
  """Reads the images in `config.metrics.samples`.

  Args:
    config: Config of the command. `config.data.channels` says whether images
      are gray or colour.

  Raises:
    ConfigError: If the file or folder is missing, or it does not hold images
      of one size.
  """
  field = f"config.metrics.samples={config.metrics.samples!r}"
  path = files.as_path(config.metrics.samples)
  if path.is_dir():
    images = _read_folder(path, config.data, field)
    return Given(images, protocol.images_record(path.name, images))
  found = _read_array(path, field)
  images, conversion = to_uint8(found, config.data.channels, field)
  record = protocol.file_record(path)
  if conversion:
    print(f"{field}: {conversion}", flush=True)
    record["conversion"] = conversion
  return Given(images, record)


def _read_folder(
  path: epath.Path, settings: ml_collections.ConfigDict, field: str
) -> np.ndarray:
  """Reads all images of a folder, which must have one size."""
  settings = settings.copy_and_resolve_references()
  settings.source = f"folder:{path}"
  settings.train_split = settings.test_split = settings.feature = ""
  try:
    source = data.open_native(settings)
    images = list(source.read(range(source.num_images)))
  except data.DataError as error:
    # The advice of the message names the field of a run's data.
    text = str(error).replace("data.source=folder:", "metrics.samples=")
    raise errors.ConfigError(f"{field}: {text}") from error
  if skipped := source.skipped():
    # Another image would take the place of each image that cannot be read.
    raise errors.ConfigError(
      f"{field}: expected images that can all be read. {skipped}. Mend or "
      "delete them."
    )
  shapes = sorted({image.shape for image in images})
  if len(shapes) > 1:
    raise errors.ConfigError(
      f"{field}: expected images of one size, found {len(shapes)} sizes "
      f"(height, width, channels), such as {shapes[0]} and {shapes[-1]}. "
      "Resize them first: a figure depends on how they are resized."
    )
  return np.stack(images)


def _read_array(path: epath.Path, field: str) -> np.ndarray:
  """Reads the array of images in a file of NumPy."""
  expected = (
    "a folder of images, an .npy, or an .npz with images under "
    f"{', '.join(_NAMES)} or alone"
  )
  try:
    if _starts_with(path, _NPY_MAGIC):
      return npz.array(path)
    names = list(npz.headers(path))
    known = [name for name in _NAMES if name in names]
    if not known and len(names) != 1:
      raise npz.FileError(f"an .npz with {names[:8]}")
    name = (known or names)[0]
    return npz.arrays(path, [name])[name]
  except npz.FileError as error:
    raise errors.ConfigError(
      f"{field}: expected {expected}, found {error}."
    ) from error


def _starts_with(path: epath.Path, magic: bytes) -> bool:
  try:
    with files.open_binary(path) as file:
      return file.read(len(magic)) == magic
  except OSError as error:
    raise npz.FileError(f"{error.strerror or error}") from error


def to_uint8(
  found: np.ndarray, channels: int, field: str
) -> tuple[np.ndarray, str]:
  """Returns images as uint8 `[n, height, width, channels]`.

  Args:
    found: Array of any type and shape.
    channels: Number of channels that the images must have, 1 or 3.
    field: Start of the error message: the field and its value.

  Returns:
    The images, and a sentence that says what was converted. It is empty if
    nothing was.

  Raises:
    ConfigError: If the array does not hold such images.
  """
  refuse = functools.partial(_refuse, found, channels, field)
  images, layout = _channels_last(found, channels)
  if images is None:
    raise refuse("")
  if not images.size:
    raise refuse(", which holds no images")
  if images.dtype.kind not in "biuf":
    raise refuse("")
  low, high = images.min(), images.max()
  if not (np.isfinite(low) and np.isfinite(high)):
    raise refuse(" with NaN or infinity")
  if low == high:
    raise refuse(f" with no value but {low:g}")
  range_text = f" with values from {low:g} to {high:g}"
  if images.dtype == np.uint8:
    if high <= 1:
      raise refuse(f"{range_text}, which would all be black")
    return np.ascontiguousarray(images), layout
  scaled, scale = _scaled(images, float(low), float(high))
  if scaled is None:
    raise refuse(range_text)
  return scaled, " ".join(filter(None, (layout, scale)))


def _refuse(
  found: np.ndarray, channels: int, field: str, detail: str
) -> errors.ConfigError:
  """Returns the error for an array that does not hold images."""
  return errors.ConfigError(
    f"{field}: expected images, uint8 [n, height, width, {channels}], found "
    f"{found.dtype} {found.shape}{detail}. [n, {channels}, height, width] and "
    "floats in [0, 1], in [-1, 1] or from 0 to 255 are converted."
  )


def _channels_last(
  found: np.ndarray, channels: int
) -> tuple[np.ndarray | None, str]:
  """Returns an array as `[n, height, width, channels]`, and what was done."""
  if found.ndim == 4 and found.shape[3] == channels:
    return found, ""
  if found.ndim == 4 and found.shape[1] == channels:
    return found.transpose(0, 2, 3, 1), (
      "The shape [n, channels, height, width] is read as such."
    )
  if found.ndim == 3 and channels == 1:
    return found[..., None], "The shape [n, height, width] is read as gray."
  return None, ""


def _scaled(
  images: np.ndarray, low: float, high: float
) -> tuple[np.ndarray | None, str]:
  """Returns images of another type as uint8, and what was done.

  Args:
    images: Images of any type of numbers but uint8.
    low: Smallest value.
    high: Largest value.
  """
  kind = images.dtype
  as_pixels = lambda x: np.ascontiguousarray(x).round().astype(np.uint8)
  if kind.kind == "b":
    return as_pixels(images * 255.0), "False is read as black, True as white."
  if kind.kind == "f" and low >= 0 and high <= 1:
    return as_pixels(images * np.float32(255)), (
      f"{kind} in [0, 1] is read as 0: black, 1: white."
    )
  if kind.kind == "f" and low >= -1 and high <= 1:
    return np.ascontiguousarray(pixels.to_uint8(images)), (
      f"{kind} in [-1, 1] is read as -1: black, 1: white."
    )
  if low >= 0 and 1 < high <= 255:
    return as_pixels(images), f"{kind} from 0 to 255 is rounded to uint8."
  return None, ""
