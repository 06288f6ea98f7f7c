"""CRC-32C, the checksum of TensorFlow's checkpoints, in NumPy.

Lanes of bytes are checked beside each other, a column at a time. A checksum is
linear over GF(2): that of a lane is shifted past the lanes behind it by a
linear map, and added.
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_LANE = 1024  # bytes
_LANES = 2**14  # at once: 16 MiB


def masked(content: np.ndarray) -> int:
  """Returns the masked CRC-32C of uint8 `[n]`, as TensorFlow stores it."""
  crc = 0xFFFFFFFF
  whole = len(content) // _LANE * _LANE
  shift = _shift()
  for start in range(0, whole, _LANE * _LANES):
    lanes = content[start : min(start + _LANE * _LANES, whole)]
    lanes = lanes.reshape(-1, _LANE)
    for lane in _advance(np.zeros(len(lanes), np.uint32), lanes).tolist():
      crc = lane ^ (
        shift[0][crc & 255]
        ^ shift[1][crc >> 8 & 255]
        ^ shift[2][crc >> 16 & 255]
        ^ shift[3][crc >> 24]
      )
  rest = content[None, whole:]
  crc = int(_advance(np.array([crc], np.uint32), rest)[0]) ^ 0xFFFFFFFF
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _advance(crcs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
  """Takes registers uint32 `[n]` past bytes `[n, length]`."""
  table = _table()
  for column in lanes.T:
    crcs = table[(crcs ^ column) & 255] ^ (crcs >> 8)
  return crcs


@functools.cache
def _table() -> np.ndarray:
  """What a byte does to the register, uint32 `[256]`."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = (table >> 1) ^ (table & 1) * np.uint32(_POLYNOMIAL)
  return table


@functools.cache
def _shift() -> list[list[int]]:
  """What a lane of zeros does to the register, by each of its four bytes."""
  registers = np.arange(256, dtype=np.uint32) << 8 * np.arange(4)[:, None]
  zeros = np.zeros((registers.size, _LANE), np.uint8)
  moved = _advance(registers.astype(np.uint32).ravel(), zeros)
  return moved.reshape(4, 256).tolist()
