"""Any bytes are decoded to an image of the right shape, or refused."""

import numpy as np
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_files import (
  bits,
  deep_gray_with_a_clear_value,
  encode,
  frames,
  noise,
  palette,
)
from PIL import Image

from hatebm_jax.data import decode as decode_lib
from hatebm_jax.data.decode import BadImageError, Reason

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def samples():
  """Returns small files of every format, in all modes that differ."""
  small = noise(0, 12, 10)
  with_alpha = np.concatenate([small, small[..., :1]], -1)
  exif = Image.Exif()
  exif[0x0112] = 6
  return [
    *(encode(small, kind) for kind in FORMATS),
    *(frames(kind) for kind in ("GIF", "WEBP", "PNG", "MPO")),
    encode(small, "JPEG", exif=exif, progressive=True),
    encode(small, "PNG", exif=exif),
    encode(with_alpha),
    encode(with_alpha, "WEBP", lossless=True),
    encode(Image.fromarray(small).convert("CMYK"), "JPEG"),
    palette(True)[0],
    deep_gray_with_a_clear_value()[0],
    bits()[0],
  ]


SAMPLES = samples()
CHANGES = st.lists(
  st.tuples(
    st.floats(0, 1, exclude_max=True),  # place, as a share of the length
    st.sampled_from(["replace", "insert", "delete", "cut"]),
    st.binary(min_size=1, max_size=4),
  ),
  max_size=6,
)


def change(encoded, changes):
  encoded = bytearray(encoded)
  for where, how, put in changes:
    # Most of what can go wrong is in the headers, which are short. Without its
    # first bytes, no file is an image.
    place = min(len(encoded), 12 + int(where**2 * len(encoded)))
    if how == "cut":
      del encoded[place:]
    elif how == "delete":
      del encoded[place : place + len(put)]
    else:
      end = place + len(put) if how == "replace" else place
      encoded[place:end] = put
  return bytes(encoded)


def decode(encoded, **overrides):
  config = tiny.data_config("folder:", **overrides)
  try:
    return decode_lib.decode(encoded, config, from_user=True)
  except BadImageError as error:
    return error.reason


@settings(max_examples=1_500, deadline=None)
@given(st.sampled_from(SAMPLES), CHANGES, st.sampled_from([1, 3]))
@example(b"", [], 3)
def test_any_bytes_are_an_image_or_our_error(encoded, changes, channels):
  mutated = change(encoded, changes)
  image = decode(mutated, channels=channels)
  if isinstance(image, Reason):
    assert encoded == b"" or changes, f"{image}: a whole image"
  else:
    assert image.shape == (8, 8, channels)
    assert image.dtype == np.uint8
  image = decode(mutated, channels=channels, crop="random")
  if not isinstance(image, Reason):
    assert min(image.shape[:2]) == 8 and max(image.shape[:2]) <= 808
