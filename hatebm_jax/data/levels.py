"""Finds out which pixel value stands for white in a set of images.

Masks and binary images are often stored as 0 and 1, and 8-bit images in files
of 16 bits. Read as usual, they would all be black.
"""

from collections.abc import Iterable

from hatebm_jax.data import decode
from hatebm_jax.data.notice import say

LOOKED_AT = 20  # images, at most
# Images whose largest value is above this share of white are as usual.
_DARK = 1 / 16


def white(name: str, encoded: Iterable[bytes]) -> int | None:
  """Returns the value of white, and says on stderr if it is unusual.

  Args:
    name: Name of the set for messages.
    encoded: Encoded images of the set, such as the first `LOOKED_AT`. Those
      that cannot be used are passed over. The first usual image ends the look.

  Returns:
    1 if all images have the values 0 and 1; 255 if all are 16-bit images with
    values up to 255; otherwise None, for which `decode.fit` takes the largest
    value that an image can have.
  """
  peaks = []
  for content in encoded:
    try:
      value, limit = decode.peak(content)
    except decode.BadImageError:
      continue
    if value > _DARK * limit:
      return None
    peaks.append((value, limit))
  if not peaks:
    return None
  value, limit = max(value for value, _ in peaks), min(x for _, x in peaks)
  found = f"{name}: the largest pixel value of {len(peaks):,} images is {value}"
  if value == 1:
    say(f"{found}. They are read as black (0) and white (1).")
    return 1
  if limit > 255 >= value > 0:
    say(f"{found} of {limit:,}. They are read as images of 8 bits.")
    return 255
  say(f"{found} of {limit:,}: they are almost black. Are they meant to be?")
  return None
