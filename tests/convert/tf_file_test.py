import subprocess
import sys
from pathlib import Path

import memory
import numpy as np
import pytest
from tf_table import (
  block,
  entry,
  field,
  footer,
  index,
  masked,
  variable,
  varint,
)

from hatebm_jax import convert
from hatebm_jax.convert import tf_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
PREFIXES = sorted(path.with_suffix("") for path in FIXTURES.glob("*/*.index"))


HEADER = entry(b"", field(1, 1))


def write(tmp_path, content, values=b""):
  (tmp_path / "x.ckpt.index").write_bytes(content)
  (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(values)
  return str(tmp_path / "x.ckpt")


@pytest.mark.parametrize("size", [0, 1, 9, 5000])
def test_checksum_is_that_of_the_definition(size):
  content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
  crc = 0xFFFFFFFF
  for byte in content.tolist():
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  expected = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
  assert masked(content.tobytes()) == expected


def test_known_checksum():
  # RFC 3720, appendix B.4, gives it for 32 bytes of zeros.
  crc = 0x8A9136AA
  expected = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
  assert masked(bytes(32)) == expected


def assert_same_as_tensorflow(prefix):
  tf = pytest.importorskip("tensorflow")

  reader = tf.train.load_checkpoint(str(prefix))
  table = tf_file.table(str(prefix))
  shapes = reader.get_variable_to_shape_map()
  assert shapes == {name: list(x.shape) for name, x in table.items()}
  for name, found in table.items():
    if found.dtype == "float32":
      values = tf_file.read(name, found)
      np.testing.assert_array_equal(values, reader.get_tensor(name))


@pytest.mark.parametrize(
  "prefix", PREFIXES, ids=lambda x: "/".join(x.parts[-2:])
)
def test_tensorflow_reads_the_same(prefix):
  assert_same_as_tensorflow(prefix)


def test_many_and_large_variables(tmp_path):
  # The table of so many variables has several blocks.
  tf = pytest.importorskip("tensorflow")

  rng = np.random.default_rng(0)
  values = {
    f"variable_{i:04d}/long_name": rng.normal(size=i % 5) for i in range(999)
  }
  values = {name: x.astype(np.float32) for name, x in values.items()}
  values["z"] = rng.normal(size=(5_000, 1_001)).astype(np.float32)
  values["scalar"] = np.float32(3)
  tf.raw_ops.SaveV2(
    prefix=str(tmp_path / "x.ckpt"),
    tensor_names=list(values),
    shape_and_slices=[""] * len(values),
    tensors=[tf.constant(x) for x in values.values()],
  )
  assert_same_as_tensorflow(tmp_path / "x.ckpt")


def test_a_table_that_is_written_here_is_read(tmp_path):
  values = np.arange(6, dtype="<f4")
  entries = HEADER + entry(b"x", variable(crc=masked(values.tobytes())))
  prefix = write(tmp_path, index(block(entries)), values.tobytes())
  found = tf_file.table(prefix)["x"]
  assert (found.shape, found.dtype) == ((2, 3), "float32")
  np.testing.assert_array_equal(tf_file.read("x", found), values.reshape(2, 3))


X = block(HEADER + entry(b"x", variable()))
MANY = b"".join(entry(b"%05d" % i, variable(shape=())) for i in range(10_001))


def test_a_footer_that_names_the_empty_block(tmp_path):
  # A bit and three bytes less: the place of the statistics is that of the list.
  content = bytearray((FIXTURES / "sngan32" / "ebm.ckpt.index").read_bytes())
  content[-49] ^= 128
  del content[-20:-17]
  with pytest.raises(convert.ConvertError, match="no header"):
    tf_file.table(write(tmp_path, content))


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "does not end as"),
    (X + footer(0, 10**14), "beyond its end"),
    (X + footer(10**19, 10), "beyond its end"),
    (X + footer(0, 0), "beyond its end"),
    (b"\xff" * 40 + footer(0, 0)[-8:], "number without end"),
    (index(X[:-1] + b"\0"), "checksum of a block"),
    (index(block(HEADER, kind=1)), "compressed block"),
    (index(X, X), "not sorted"),
    (index(block(entry(b"x", b"") + entry(b"x", b""))), "not sorted"),
    (index(block(entry(b"x", b"", shared=1))), "beyond its block"),
    (index(block(varint(0) + varint(2**60) + varint(0))), "beyond its block"),
    (index(block(entry(b"x" * 1025, b""))), "name that is too long"),
    (index(block(b"", restarts=range(9))[8:]), "checksum|beyond"),
    (index(block(b"\xff" * 12)), "number without end"),
    (index(), "no header"),
    (index(block(entry(b"x", variable()))), "no header"),
    (index(block(HEADER + entry(b"\xff", variable()))), "decode"),
    (index(block(entry(b"", field(2, 1)))), "little-endian"),
    (index(block(entry(b"", field(2, b"x")))), "field 2 of another kind"),
    (
      index(block(HEADER + entry(b"x", field(2, 1)))),
      "field 2 of another kind",
    ),
    (
      index(block(HEADER + entry(b"x", field(2, field(2, 7))))),
      "in place of a message",
    ),
    (index(block(HEADER + entry(b"x", b"\x0b"))), "field of the kind 3"),
    (index(block(HEADER + entry(b"x", b"\x12\x7f"))), "beyond its message"),
    (index(block(HEADER + entry(b"x", b"\x35\x01"))), "buffer"),
    (index(block(MANY)), "more than 10000 entries"),
  ],
)
def test_bad_tables(tmp_path, content, message):
  prefix = write(tmp_path, content)
  with (
    memory.claims_less_than(2e8),
    pytest.raises(convert.ConvertError, match=message),
  ):
    tf_file.table(prefix)


@pytest.mark.parametrize(
  "entry_of_x, message",
  [
    (variable(size=20), "20 bytes, not 24"),
    (variable(shape=(10**6, 10**6), size=4 * 10**12), "beyond the file's end"),
    (variable(shape=(2**64 - 1, 1)), "24 bytes, not"),
    (variable(offset=1), "beyond the file's end"),
    (variable(offset=2**63), "beyond the file's end"),
    (variable(crc=1), "checksum does not fit"),
    (variable(dtype=7), "not stored as float32"),
    (variable(more=field(7, b"")), "in one piece"),
    (variable(more=field(3, 7)), "No such file"),
    (variable(shape=(0, 2**62), size=0), "checksum"),
  ],
)
def test_bad_values(tmp_path, entry_of_x, message):
  content = index(block(HEADER + entry(b"x", entry_of_x)))
  prefix = write(tmp_path, content, bytes(24))
  found = tf_file.table(prefix)["x"]
  with pytest.raises(convert.ConvertError, match=message):
    tf_file.read("x", found)


def test_tensorflow_is_not_imported():
  code = (
    "import sys; from hatebm_jax import convert; "
    f"convert.from_tf2({str(PREFIXES[0])!r}); "
    "assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
