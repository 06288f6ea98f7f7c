"""Damaged metadata do not matter: the pixels of the image are used."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, encode, frames, noise, png, rows, text_bomb
from PIL import Image

from hatebm_jax.data import decode as decode_lib
from hatebm_jax.data import metadata

TALL = noise(0, 12, 8)
JUNK = bytes(range(1, 200))


def decode(encoded):
  """Decodes as a folder does, without a warning."""
  config = tiny.data_config("folder:x", image_size=8, crop="random")
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return decode_lib.decode(encoded, config, from_user=True)


def segment(marker, content, length=None):
  """Returns a segment of a JPEG; `length` may be false."""
  length = len(content) if length is None else length
  return struct.pack(">BBH", 0xFF, marker, length + 2) + content


def in_jpeg(*segments, **options):
  plain = encode(TALL, "JPEG", quality=95, **options)
  return plain, plain[:2] + b"".join(segments) + plain[2:]


def in_png(*chunks, last=b""):
  plain = png(8, 12, 8, 2, rows(TALL.reshape(12, 24)))
  content = plain[:33] + b"".join(chunks) + plain[33:-12] + last + plain[-12:]
  return plain, content


def riff(*chunks):
  content = b"WEBP" + b"".join(
    struct.pack("<4sI", kind, length) + body for kind, body, length in chunks
  )
  return struct.pack("<4sI", b"RIFF", len(content)) + content


def in_webp(*extra, flags):
  """Returns a lossless WebP, and the same with chunks of metadata."""
  plain = encode(TALL, "WEBP", lossless=True)
  pixels = plain[20:]
  size = struct.pack("<I", 7)[:3] + struct.pack("<I", 11)[:3]
  header = (b"VP8X", bytes([flags, 0, 0, 0]) + size, 10)
  kind, length = struct.unpack_from("<4sI", plain, 12)
  return plain, riff(header, (kind, pixels, length), *extra)


def in_gif(extension):
  plain = encode(Image.fromarray(TALL).quantize(16), "GIF")
  table = 13 + 3 * 2 ** (plain[10] % 8 + 1)
  return plain, plain[:table] + extension + plain[table:]


def exif(orientation, *, cut=None):
  found = Image.Exif()
  found[0x0112], found[0x010E] = orientation, "a description of the image"
  return found.tobytes()[:cut]


def in_bmp(resolution, colors_used):
  plain = encode(TALL, "BMP")
  fields = struct.pack("<iiI", resolution, -resolution, colors_used)
  return plain, plain[:38] + fields + plain[50:]


ICC = b"ICC_PROFILE\0"
BAD_CRC = chunk(b"tEXt", b"Comment\0text")[:-4] + b"0000"
LONG = b"Comment\0" + b"x" * 2**21
KINDS = {
  "JPEG: half an EXIF block": in_jpeg(segment(0xE1, exif(3, cut=20))),
  "JPEG: EXIF that is junk": in_jpeg(segment(0xE1, b"Exif\0\0" + JUNK)),
  "JPEG: EXIF with no content": in_jpeg(segment(0xE1, b"Exif\0\0")),
  "JPEG: a profile of no length": in_jpeg(segment(0xE2, ICC)),
  "JPEG: a profile without a count": in_jpeg(segment(0xE2, ICC + b"\1")),
  "JPEG: half a profile": in_jpeg(segment(0xE2, ICC + b"\1\2" + JUNK)),
  "JPEG: XMP without its zero": in_jpeg(
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<x:xmpmeta")
  ),
  "JPEG: short JFIF": in_jpeg(segment(0xE0, b"JFIF")),
  "JPEG: no density": in_jpeg(segment(0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0")),
  "JPEG: short Adobe": in_jpeg(segment(0xEE, b"Adobe")),
  "JPEG: half a Photoshop block": in_jpeg(
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2xx")
  ),
  "JPEG: Photoshop block that ends early": in_jpeg(
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")
  ),
  "JPEG: broken index of images": in_jpeg(segment(0xE2, b"MPF\0II*\0" + JUNK)),
  "JPEG: comment longer than it says": in_jpeg(segment(0xFE, JUNK, 20)),
  "JPEG: comment with no end": in_jpeg(b"\xff\xfe\0\0"),
  "JPEG: an unknown marker": in_jpeg(segment(0xF7, JUNK)),
  "PNG: broken checksum": in_png(BAD_CRC),
  "PNG: broken checksum at the end": in_png(last=BAD_CRC),
  "PNG: bomb of text": in_png(text_bomb()),
  "PNG: bomb of text at the end": in_png(last=text_bomb()),
  "PNG: long text": in_png(chunk(b"tEXt", LONG)),
  "PNG: much text": in_png(
    *[chunk(b"zTXt", b"C\0\0" + zlib.compress(bytes(2**20 - 1)))] * 70
  ),
  "PNG: text of junk": in_png(chunk(b"zTXt", b"C\0\0" + JUNK)),
  "PNG: text of an unknown method": in_png(chunk(b"zTXt", b"C\0\7" + JUNK)),
  "PNG: international text of junk": in_png(
    chunk(b"iTXt", b"C\0\1\0\0\0" + JUNK)
  ),
  "PNG: XMP of junk": in_png(
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe" + JUNK)
  ),
  "PNG: profile of junk": in_png(chunk(b"iCCP", b"name\0\0" + JUNK)),
  "PNG: profile of another method": in_png(chunk(b"iCCP", b"name\0\3" + JUNK)),
  "PNG: profile with nothing": in_png(chunk(b"iCCP", b"")),
  "PNG: no gamma": in_png(chunk(b"gAMA", b"")),
  "PNG: half of the chromaticities": in_png(chunk(b"cHRM", b"12345")),
  "PNG: no resolution": in_png(chunk(b"pHYs", b"123")),
  "PNG: resolution of zero": in_png(chunk(b"pHYs", bytes(8) + b"\1")),
  "PNG: no rendering intent": in_png(chunk(b"sRGB", b"")),
  "PNG: EXIF of junk": in_png(chunk(b"eXIf", JUNK)),
  "PNG: EXIF of junk at the end": in_png(last=chunk(b"eXIf", JUNK)),
  "PNG: no number of frames": in_png(chunk(b"acTL", b"1")),
  "PNG: chunk with a strange name": in_png(chunk(b"\1\2\3\4", JUNK)),
  "PNG: last comment cut": (
    in_png()[0],
    in_png()[0][:-12] + chunk(b"tEXt", b"Comment\0text")[:-7],
  ),
  "PNG: no end": (in_png()[0], in_png()[0][:-12]),
  "WebP: EXIF of junk": in_webp((b"EXIF", JUNK + b"\0", 199), flags=8),
  "WebP: profile of junk": in_webp((b"ICCP", JUNK + b"\0", 199), flags=32),
  "WebP: XMP of junk": in_webp((b"XMP ", JUNK + b"\0", 199), flags=4),
  "WebP: metadata that are not there": in_webp(flags=44),
  "WebP: last chunk cut": in_webp((b"EXIF", JUNK, 9999), flags=8),
  "WebP: no EXIF content": in_webp((b"EXIF", b"", 0), flags=8),
  "GIF: comment of junk": in_gif(b"!\xfe" + bytes([199]) + JUNK + b"\0"),
  "GIF: unknown application": in_gif(b"!\xff\3abc\0"),
  "GIF: empty loop": in_gif(b"!\xff\x0bNETSCAPE2.0\0"),
  "GIF: half a loop": in_gif(b"!\xff\x0bNETSCAPE2.0\1\1\0"),
  "GIF: plain text": in_gif(b"!\x01\x0c" + bytes(12) + b"\5hello\0"),
  "BMP: false resolution": in_bmp(-(2**31) + 1, 0),
  "BMP: no resolution": in_bmp(0, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_used(kind):
  plain, with_metadata = KINDS[kind]
  assert with_metadata != plain
  np.testing.assert_array_equal(decode(with_metadata), decode(plain))


@pytest.mark.parametrize(
  ("kind", "where"),
  [
    ("JPEG", lambda x: in_jpeg(segment(0xE2, ICC), exif=x)[1]),
    ("JPEG", lambda x: in_jpeg(segment(0xEE, b"Adobe"), exif=x)[1]),
    ("PNG", lambda x: in_png(BAD_CRC, chunk(b"eXIf", x[6:]))[1]),
    ("PNG", lambda x: in_png(text_bomb(), chunk(b"eXIf", x[6:]))[1]),
  ],
)
def test_the_image_is_still_turned_upright(kind, where):
  np.testing.assert_array_equal(
    decode(where(exif(3))), decode(where(exif(1)))[::-1, ::-1]
  )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
  from PIL import ImageOps

  content = encode(TALL, "PNG", exif=exif(orientation))
  expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
  np.testing.assert_array_equal(decode(content), np.asarray(expected))


@pytest.mark.parametrize("orientation", [0, 9, 2**15])
def test_orientations_that_do_not_exist(orientation):
  content = encode(TALL, "PNG", exif=exif(orientation))
  np.testing.assert_array_equal(decode(content), TALL)


def sources():
  """Returns whole images of all formats, with metadata."""
  options = {"exif": exif(6), "icc_profile": JUNK, "comment": "words"}
  with_xmp = options | {"xmp": b"<x:xmpmeta/>"}
  return [
    encode(TALL, "JPEG", **with_xmp),
    encode(TALL, "JPEG", progressive=True, **with_xmp),
    encode(Image.fromarray(TALL).convert("CMYK"), "JPEG", **with_xmp),
    encode(TALL, "PNG", **options),
    encode(Image.fromarray(TALL).quantize(9), "PNG", transparency=3),
    encode(TALL, "WEBP", **with_xmp),
    encode(np.dstack([TALL, TALL[..., :1]]), "WEBP", **with_xmp),
    encode(Image.fromarray(TALL).quantize(9), "GIF", **options),
    *(frames(kind) for kind in ("GIF", "WEBP", "PNG", "MPO")),
  ]


SOURCES = sources()


@pytest.mark.parametrize("i", range(len(SOURCES)))
def test_nothing_that_the_pixels_need_is_left_out(i):
  expected = decode(SOURCES[i])
  upright, *bare = [*metadata.without(SOURCES[i])] or [SOURCES[i]]
  np.testing.assert_array_equal(decode(upright), expected)
  assert b"words" not in upright and b"xmpmeta" not in upright
  for content in bare:
    assert b"Exif" not in content and b"EXIF" not in content
    assert sorted(decode(content).shape) == sorted(expected.shape)


@pytest.mark.parametrize("i", range(len(SOURCES)))
def test_a_file_may_end_anywhere(i):
  for end in range(len(SOURCES[i])):
    found = metadata.without(SOURCES[i][:end])
    assert all(len(x) <= end + 20 for x in found)


@settings(max_examples=300, deadline=None)
@given(
  st.sampled_from(SOURCES), st.floats(0, 1), st.integers(0, 9), st.binary()
)
def test_any_bytes_end_in_versions_of_about_their_size(
  content, where, cut, extra
):
  place = int(where * len(content))
  changed = content[:place] + extra + content[place + cut :]
  found = list(metadata.without(changed))
  assert len(found) <= 2
  assert all(len(x) <= len(changed) + 20 for x in found)
