"""What every source of images returns and raises."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hatebm_jax import errors
from hatebm_jax.data import decode

# A split may have any of these names, in upper or lower case. The first name is
# preferred.
SPLITS = {
  "train": ("train", "training"),
  "test": ("test", "testing", "validation", "valid", "val"),
}


class DataError(errors.UserError):
  """The data or their configuration are wrong; the message says what to do."""


class Source(NamedTuple):
  """A set of images in a fixed order.

  Attributes:
    name: Name for messages, such as `digits train`.
    num_images: Number of images.
    image_size: Height and width of a batch in pixels.
    read: Function that takes increasing indices and returns an iterator of
      uint8 `[height, width, channels]`. No side is shorter than `image_size`.
    stream: None if `read` is fast at any index. Otherwise a function that takes
      (seed, start, process_index, process_count) and returns an endless
      iterator of this host's shuffled images, beginning with the image
      `start`.
    skipped: Function that returns how many unusable images were found so far
      and why they are unusable. It returns '' if there were none.
    to_copy: Number of bytes that the first `read` copies from a bucket to this
      host, which may take minutes.
  """

  name: str
  num_images: int
  image_size: int
  read: Callable[[Iterable[int]], Iterator[np.ndarray]]
  stream: Callable[[int, int, int, int], Iterator[np.ndarray]] | None = None
  skipped: Callable[[], str] = lambda: ""
  to_copy: int = 0

  def images(
    self, indices: Sequence[int], positions: np.ndarray | None = None
  ) -> np.ndarray:
    """Reads images and cuts squares out of them.

    If `stream` is set, every call reads through the set up to its last index.
    It is faster to ask for all images in one call.

    Args:
      indices: `[n]` in [0, num_images). Any order and repeats are allowed.
      positions: Positions of the squares, `[n, 2]` in [0, 1), see `decode.cut`.
        None cuts the centre squares.

    Returns:
      uint8 `[n, image_size, image_size, channels]`.

    Raises:
      DataError: An image cannot be read.
    """
    increasing, inverse = np.unique(indices, return_inverse=True)
    images = list(self.read(increasing))
    return decode.cut([images[i] for i in inverse], self.image_size, positions)


def pick_split(split: str, available: Iterable[str]) -> str | None:
  """Returns the available name of a split.

  Args:
    split: 'train' or 'test'.
    available: Names of the splits, or of the folders, that exist.

  Returns:
    The preferred name of the split among those available, or None.
  """
  # `test` comes before `Test` where both exist.
  names = sorted(available, key=lambda name: (name != name.lower(), name))
  found = {name.lower(): name for name in reversed(names)}
  return next((found[x] for x in SPLITS[split] if x in found), None)
