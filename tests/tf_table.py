"""Writes valid and invalid tables of TensorFlow 2's checkpoints."""

import struct

from hatebm_jax.convert import tf_file


def varint(number):
  content = b""
  while number > 127:
    content += bytes([number & 127 | 128])
    number >>= 7
  return content + bytes([number])


def field(number, value):
  if isinstance(value, bytes):
    return varint(8 * number + 2) + varint(len(value)) + value
  return varint(8 * number) + varint(value)


def variable(shape=(2, 3), size=24, dtype=1, offset=0, crc=0, more=b""):
  axes = b"".join(field(2, field(1, axis)) for axis in shape)
  entry = field(1, dtype) + field(2, axes) + field(4, offset) + field(5, size)
  return entry + varint(8 * 6 + 5) + struct.pack("<I", crc) + more


def masked(content):
  return tf_file._masked_crc(content)


def checksummed(content):
  return content + struct.pack("<I", masked(content))


def entry(key, value, shared=0):
  sizes = varint(shared) + varint(len(key)) + varint(len(value))
  return sizes + key + value


def block(content, kind=0, restarts=(0,)):
  content += b"".join(struct.pack("<I", x) for x in restarts)
  content += struct.pack("<I", len(restarts)) + bytes([kind])
  return checksummed(content)


def footer(offset, size):
  handles = varint(0) + varint(0) + varint(offset) + varint(size)
  return handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def index(*blocks):
  """Returns a table of blocks."""
  content, handles = b"", b""
  for i, one in enumerate(blocks):
    handle = varint(len(content)) + varint(len(one) - 5)
    handles += entry(b"%d" % i, handle)
    content += one
  handles = block(handles)
  return content + handles + footer(len(content), len(handles) - 5)
