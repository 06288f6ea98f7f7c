"""Files .npz that somebody made to do harm."""

import io
import os
import struct
import zipfile

import memory
import numpy as np
import pytest

from hatebm_jax.run import npz

X = np.arange(6, dtype="<f4").reshape(2, 3)


def npy(array, **options):
  file = io.BytesIO()
  np.lib.format.write_array(file, array, **options)
  return file.getvalue()


def with_header(text, version=1, content=b""):
  """An .npy of any text as its header."""
  size = struct.pack("<H" if version == 1 else "<I", len(text))
  return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + content


def with_shape(shape, descr="'<f4'", content=b""):
  fields = f"'descr': {descr}, 'fortran_order': False, 'shape': {shape}, "
  return with_header("{" + fields + "}", content=content)


def write(path, *parts, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", compression) as archive:
    for name, content in parts:
      archive.writestr(name, content)
  return path


@pytest.fixture(name="path")
def npz_path(tmp_path):
  return tmp_path / "x.npz"


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("array", [X, np.asfortranarray(X), X.astype(">f8")])
def test_what_is_read(path, version, array):
  write(path, ("x.npy", npy(array, version=version)))
  assert npz.headers(path) == {"x": (array.shape, array.dtype)}
  found = npz.arrays(path, ["x"], optional=["y"])
  assert list(found) == ["x"]
  np.testing.assert_array_equal(found["x"], array)


def test_what_shrinks_as_images_do_is_read(path):
  image = np.tile(np.arange(64, dtype=np.uint8), (300, 64, 1))
  np.savez_compressed(path, x=image)
  np.testing.assert_array_equal(npz.arrays(path, ["x"])["x"], image)


@pytest.mark.parametrize(
  "content, message",
  [
    (npy(X, version=(3, 0)), r"format version \(3, 0\)"),
    (npy(X)[:-1], "bytes for the shape"),
    (npy(X) + b"x", "bytes for the shape"),
    (b"x", "magic"),
    (b"", "magic"),
    (npy(np.array([{}])), "type object"),
    (npy(np.zeros(2, "f4,f4")), "not numbers"),
    (npy(np.array("2020", "M8[D]")), "not numbers"),
    (with_shape((10**9, 10**9)), "bytes for the shape"),
    (with_shape((10**30, 0)), "too large"),
    (with_shape((-1, -6), content=bytes(24)), "bytes for the shape"),
    (with_shape((10**12,), "'<U0'"), "not numbers"),
    (with_shape((2,), "'O'"), "type object"),
    (with_shape((2,), "'|V99999999'"), "not numbers"),
    (with_shape("(" * 999), "header that cannot be read"),
    (with_shape("(" * 999 + ")" * 999), "header that cannot be read"),
    (with_header("-" * 9000 + "1"), "header that cannot be read"),
    (with_header("{" * 9000), "header that cannot be read"),
    (with_header("'''"), "header that cannot be read"),
    (with_header("{}"), "header that cannot be read"),
    (with_header(" " * 60_000), "header that cannot be read"),
    (with_shape((2,), "[" * 500 + "]" * 500), "header that cannot be read"),
    (with_shape((2,), "'(9,9)f4,,'"), "header that cannot be read"),
    (with_header(" " * 99, 2)[:8] + b"\xff\xff\xff\xff", "cannot be read"),
  ],
)
def test_bad_arrays_are_refused(path, content, message):
  write(path, ("x.npy", content))
  with pytest.raises(npz.FileError, match=message):
    npz.arrays(path, ["x"])


def test_two_arrays_of_one_name(path):
  # Checked as the one, read as the other.
  with pytest.warns(UserWarning, match="Duplicate"):
    write(path, ("x.npy", npy(X)), ("x.npy", npy(X)))
  with pytest.raises(npz.FileError, match="two parts of one name"):
    npz.arrays(path, ["x"])
  write(path, ("x.npy", npy(X)), ("x", npy(X)))
  with pytest.raises(npz.FileError, match="two arrays of one name"):
    npz.headers(path)


def test_bomb(path):
  array = np.zeros(300 * 2**20, np.uint8)
  write(path, ("x.npy", npy(array)), compression=zipfile.ZIP_DEFLATED)
  del array
  assert path.stat().st_size < 2**20
  with (
    memory.claims_less_than(2**20),
    pytest.raises(npz.FileError, match="would unpack"),
  ):
    npz.arrays(path, ["x"])


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_methods_that_claim_memory(path, method):
  write(path, ("x.npy", npy(X)), compression=method)
  with pytest.raises(npz.FileError, match="packed in a way"):
    npz.arrays(path, ["x"])


def change_directory(path, offset, value):
  """Writes over a field of the first entry of the zip's directory."""
  content = bytearray(path.read_bytes())
  start = content.index(b"PK\1\2") + offset
  content[start : start + len(value)] = value
  path.write_bytes(content)


@pytest.mark.parametrize(
  "offset, value, message",
  [
    (8, b"\1\0", "encrypted"),
    (20, struct.pack("<I", 2**31), "larger than the file"),
    (24, struct.pack("<I", 2**30), "would unpack"),
    (24, struct.pack("<I", 200), "bytes for the shape"),
    (42, struct.pack("<I", 2**31), "Truncated file"),
  ],
)
def test_lies_of_the_directory(path, offset, value, message):
  write(path, ("x.npy", npy(X)))
  change_directory(path, offset, value)
  with pytest.raises(npz.FileError, match=message):
    npz.arrays(path, ["x"])


def test_lies_of_zip64(path):
  # An extra field may claim 2**60 bytes.
  info = zipfile.ZipInfo("x.npy")
  info.extra = struct.pack("<HHQQ", 1, 16, 2**60, 2**60)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr(info, npy(X))
  change_directory(path, 20, b"\xff" * 8)
  with pytest.raises(npz.FileError, match="larger than the file"):
    npz.arrays(path, ["x"])


@pytest.mark.parametrize(
  "content", [b"", npy(X), b"PK\3\4", b"PK\5\6" + bytes(18)]
)
def test_no_npz(path, content):
  path.write_bytes(content)
  with pytest.raises(npz.FileError, match=r"not a zip|no x in it"):
    npz.arrays(path, ["x"])


class Malicious:
  def __init__(self, target):
    self.target = str(target)

  def __reduce__(self):
    return os.system, (f"touch {self.target}",)


def test_no_pickle_is_run(path, tmp_path):
  np.savez(path, x=np.array([Malicious(tmp_path / "ran")]))
  with pytest.raises(npz.FileError, match="type object"):
    npz.arrays(path, ["x"])
  assert not (tmp_path / "ran").exists()
  np.load(path, allow_pickle=True)["x"]  # It would have run.
  assert (tmp_path / "ran").exists()
