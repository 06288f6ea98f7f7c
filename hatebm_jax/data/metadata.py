"""Leaves out of an image file what its pixels do not need.

Comments, colour profiles, EXIF and XMP data are often damaged or too large, and
Pillow then refuses the whole image. The functions here copy those parts of a
file that its pixels need. They do not decode anything.
"""

import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_JPEG = b"\xff\xd8"
# Frames, Huffman and quantization tables, number of lines, restart interval.
_JPEG_SEGMENTS = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD}
_WEBP_CHUNKS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_EXIF = 0x08
_WEBP_METADATA = 0x20 | _WEBP_EXIF | 0x04  # profile, EXIF and XMP


def without(encoded: bytes) -> Iterator[bytes]:
  """Yields an image file without its metadata.

  The first version still has the EXIF data, which say where the top of the
  image is. The second version has nothing but pixels.

  Args:
    encoded: Content of an image file, which may be damaged.

  Yields:
    Content of an image file, if it differs from `encoded`. Nothing is yielded
    for formats whose metadata cannot do harm.
  """
  seen = {encoded}
  for keep_exif in (True, False):
    if encoded.startswith(_PNG):
      found = _png(encoded, keep_exif)
    elif encoded.startswith(_JPEG):
      found = _jpeg(encoded, keep_exif)
    elif encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
      found = _webp(encoded, keep_exif)
    elif encoded.startswith(b"GIF8"):
      found = _gif(encoded)
    else:
      return
    if found not in seen:
      seen.add(found)
      yield found


def _png(encoded: bytes, keep_exif: bool) -> bytes:
  """Copies the whole chunks of a PNG that its pixels need."""
  kinds = (*_PNG_CHUNKS, *((b"eXIf",) if keep_exif else ()))
  parts, place = [_PNG], len(_PNG)
  while place + 12 <= len(encoded):
    length, kind = struct.unpack_from(">I4s", encoded, place)
    end = place + 12 + length
    if kind in kinds and end <= len(encoded):
      parts.append(encoded[place:end])
    place = end
  return b"".join([*parts, _PNG_END])


def _jpeg(encoded: bytes, keep_exif: bool) -> bytes:
  """Copies the segments of a JPEG that its pixels need, and the scans."""
  parts, place = [_JPEG], len(_JPEG)
  while 0 <= place <= len(encoded) - 4:
    start, marker, length = struct.unpack_from(">BBH", encoded, place)
    if start != 0xFF:  # A comment was longer than it said.
      place = encoded.find(b"\xff", place)
      continue
    if marker == 0xDA:  # The scans follow up to the end.
      parts.append(encoded[place:])
      break
    if marker == 0xFF:
      place += 1
    elif marker in (0x00, 0x01, *range(0xD0, 0xDA)):  # These have no length.
      place += 2
    else:
      segment = encoded[place : place + 2 + length]
      if marker in _JPEG_SEGMENTS or _is_needed(segment, keep_exif):
        parts.append(segment)
      place += 2 + length
  return b"".join(parts)


def _is_needed(segment: bytes, keep_exif: bool) -> bool:
  """Says whether an application segment tells the colours or the top."""
  content = segment[4:]
  return bool(
    (segment[1] == 0xE0 and content.startswith(b"JFIF\0") and len(content) > 11)
    or (segment[1] == 0xEE and content.startswith(b"Adobe") and content[11:])
    or (segment[1] == 0xE1 and content.startswith(b"Exif\0") and keep_exif)
  )


def _webp(encoded: bytes, keep_exif: bool) -> bytes:
  """Copies the whole chunks of a WebP that its pixels need."""
  parts, place = [b"WEBP"], 12
  while place + 8 <= len(encoded):
    kind, length = struct.unpack_from("<4sI", encoded, place)
    end = place + 8 + length + length % 2
    chunk = encoded[place:end]
    if kind == b"VP8X" and len(chunk) >= 18:  # The file may end within it.
      clear = _WEBP_METADATA ^ (_WEBP_EXIF if keep_exif else 0)
      chunk = chunk[:8] + bytes([chunk[8] & ~clear]) + chunk[9:]
    if kind in _WEBP_CHUNKS or (kind == b"EXIF" and keep_exif):
      parts.append(chunk)
    place = end
  content = b"".join(parts)
  return struct.pack("<4sI", b"RIFF", len(content)) + content


def _gif(encoded: bytes) -> bytes:
  """Copies a GIF up to its first image, without comments and the like."""
  place = 13 + _table_size(encoded[10:11])
  parts = [encoded[:place]]
  while encoded[place : place + 1] == b"!":
    end = _blocks_end(encoded, place + 2)
    if encoded[place + 1 : place + 2] == b"\xf9":  # the transparent colour
      parts.append(encoded[place:end])
    place = end
  if encoded[place : place + 1] == b",":
    first = place + 10 + _table_size(encoded[place + 9 : place + 10]) + 1
    parts.append(encoded[place : _blocks_end(encoded, first)])
  return b"".join([*parts, b";"])


def _table_size(flags: bytes) -> int:
  """Returns the number of bytes of a GIF's table of colours."""
  has_table = flags and flags[0] & 0x80
  return 3 * 2 ** (flags[0] % 8 + 1) if has_table else 0


def _blocks_end(encoded: bytes, place: int) -> int:
  """Returns where a sequence of a GIF's blocks ends."""
  while place < len(encoded) and encoded[place]:
    place += encoded[place] + 1
  return place + 1
