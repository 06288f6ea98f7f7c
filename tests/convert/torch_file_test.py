import os
import pickle
import pickletools
import zipfile

import jax.numpy as jnp
import memory
import numpy as np
import pth
import pytest

from hatebm_jax import convert
from hatebm_jax.convert import torch_file

VALUES = np.arange(24, dtype="<f4")


def read(path):
  return torch_file.read(path, torch_file.load(path))


@pytest.mark.parametrize(
  ("offset", "shape", "strides", "expected"),
  [
    (0, (2, 3, 4), (12, 4, 1), VALUES.reshape(2, 3, 4)),
    (0, (4, 3, 2), (1, 4, 12), VALUES.reshape(2, 3, 4).T),
    (16, (2, 4), (4, 1), VALUES.reshape(2, 3, 4)[1, 1:]),
    (0, (2, 2, 4), (12, 8, 1), VALUES.reshape(2, 3, 4)[:, ::2]),
    (5, (3, 2), (0, 1), np.tile(VALUES[5:7], (3, 1))),
    (23, (), (), VALUES[23]),
    (0, (0, 5), (5, 1), np.zeros((0, 5), "f4")),
  ],
)
def test_views(tmp_path, offset, shape, strides, expected):
  content = pth.dictionary(x=pth.tensor(24, offset, shape, strides))
  path = pth.write(tmp_path / "x.pth", content, data_0=VALUES.tobytes())
  array = read(path)["x"]
  assert (array.dtype, array.shape) == (np.float32, shape)
  np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
  ("kind", "code"),
  [("DoubleStorage", "f8"), ("LongStorage", "i8"), ("HalfStorage", "f2")],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_types_and_byte_order(tmp_path, kind, code, order):
  content = pth.dictionary(x=pth.tensor(24, 0, (24,), (1,), kind=kind))
  stored = VALUES.astype({"little": "<", "big": ">"}[order] + code)
  array = read(
    pth.write(
      tmp_path / "x.pth", content, data_0=stored.tobytes(), byteorder=order
    )
  )["x"]
  assert array.dtype == np.dtype(code)
  np.testing.assert_array_equal(array, VALUES)


@pytest.mark.parametrize("order", ["little", "big"])
def test_bfloat16(tmp_path, order):
  content = pth.dictionary(
    x=pth.tensor(24, 2, (2, 11), (1, 2), kind="BFloat16Storage")
  )
  stored = VALUES.astype(jnp.bfloat16).view("u2")
  stored = stored.astype({"little": "<u2", "big": ">u2"}[order])
  array = read(
    pth.write(
      tmp_path / "x.pth", content, data_0=stored.tobytes(), byteorder=order
    )
  )["x"]
  assert array.dtype == jnp.bfloat16
  np.testing.assert_array_equal(array, VALUES[2:].reshape(11, 2).T)


def test_parameters_are_tensors(tmp_path):
  tensor = pth.tensor(24, 1, (2,), (3,))
  content = pth.dictionary(x=pth.parameter(tensor), y=tensor)
  path = pth.write(tmp_path / "x.pth", content, data_0=VALUES.tobytes())
  values = read(path)
  np.testing.assert_array_equal(values["x"], [1, 4])
  np.testing.assert_array_equal(values["y"], [1, 4])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickle_protocols(tmp_path, protocol):
  content = {"step": 7, "names": ["a", "a"], "pair": (1, 2.5), "none": None}
  path = tmp_path / "x.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("net/data.pkl", pickle.dumps(content, protocol))
  assert torch_file.load(path) == content


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickle_protocols_before_pytorch_1_6(tmp_path, protocol):
  path = pth.write_old(tmp_path / "x.pth", TWO, first=FIRST, second=SECOND)
  content, parts = path.read_bytes(), []
  for _ in range(5):
    # Each of the five pickles ends in a full stop; `genops` knows which.
    end = [place for _, _, place in pickletools.genops(content)][-1] + 1
    parts.append(pth.translate(content[:end], protocol))
    content = content[end:]
  path.write_bytes(b"".join([*parts, content]))
  np.testing.assert_array_equal(read(path)["b"], [[0, 2, 4], [1, 3, 5]])


def test_other_content(tmp_path):
  # A trainer's file has numbers, lists and text too, in protocol 2.
  content = {
    "global_step": 100_000,
    "large": 2**40,
    "rates": [2e-4, None, True, False, -1],
    "betas": (0.0, 0.9),
    "nested": {0: {}, "é": [], "one": (1,), "three": (1, 2, 3), "none": ()},
  }
  pickled = pickle.dumps(content, protocol=2)[2:-1]
  assert torch_file.load(pth.write(tmp_path / "x.pth", pickled)) == content


class Malicious:
  def __init__(self, target):
    self.target = str(target)

  def __reduce__(self):
    return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(6))
def test_no_call_is_made(tmp_path, protocol):
  pickled = pickle.dumps({"x": Malicious(tmp_path / "ran")}, protocol=protocol)
  path = tmp_path / "x.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("net/data.pkl", pickled)
  with pytest.raises(convert.ConvertError, match="refused") as error:
    torch_file.load(path)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "ran").exists()
  pickle.loads(pickled)  # This runs it: the file is really dangerous.
  assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
  ("instructions", "message"),
  [
    (pth.call("builtins eval", pth.text("1")), "asks for 'builtins eval'"),
    (pth.call("torch FloatStorage"), "call that is not of a tensor"),
    (pth.call("collections OrderedDict", b"]"), "call that is not"),
    (b"ccollections\nOrderedDict\n)\x81", "the instruction NEWOBJ"),
    (b"\x8c\x02os\x8c\x06system\x93", "asks for 'os system'"),
    (b"NN\x93", "name is no text"),
    (pth.call("torch._utils _rebuild_parameter", b"N"), "without tensor"),
    (b"(" + pth.text("module") + b"tQ", "positional argument"),
    (b"(" + 5 * pth.text("storage") + b"tQ", "no storage of numbers"),
    (b"}" + pth.numbers([1]) + b"Ns", "neither text nor a number"),
    (b")" + pth.text("x") + b"Ns", "no dictionary"),
    (b"}Na", "no list"),
    (b"}(" + pth.text("x") + b"u", "zip"),
    (b"(}NNu", "out of range"),
    (b"Nu", "pop from empty list"),
    (b"\x87", "too little"),
    (b"N(N\x86", "too little"),
    (b"h\x07", "7"),
    (b"X\xff\xff\xff\x7f", "expected 2147483647 bytes"),
    (b"", "pop from empty list"),
  ],
)
def test_bad_pickle(tmp_path, instructions, message):
  path = pth.write(tmp_path / "x.pth", instructions)
  with pytest.raises(convert.ConvertError, match=message):
    torch_file.load(path)


@pytest.mark.parametrize(
  ("size", "offset", "shape", "strides"),
  [
    (24, 1, (24,), (1,)),
    (24, 24, (), ()),
    (24, 0, (2, 12), (13, 1)),
    (24, 0, (10**9,), (0,)),
    (24, -1, (2,), (1,)),
    (24, 0, (2,), (-1,)),
    (24, 0, (2, 2), (1,)),
    (24, 0, (0, 5), (-1, 1)),
    (-1, 0, (), ()),
  ],
)
def test_tensor_beyond_its_values(tmp_path, size, offset, shape, strides):
  content = pth.dictionary(x=pth.tensor(size, offset, shape, strides))
  path = pth.write(tmp_path / "x.pth", content, data_0=VALUES.tobytes())
  with pytest.raises(convert.ConvertError, match=r"tensor|shorter|storage"):
    torch_file.load(path)


@pytest.mark.parametrize(
  ("key", "size", "message"),
  [
    ("0", 10**9, "has 96 bytes, not 4000000000"),
    ("0", 23, "has 96 bytes, not 92"),
    ("1", 24, "no item named 'net/data/1'"),
    ("../data.pkl", 24, "no item named"),
  ],
)
def test_size_of_the_values(tmp_path, key, size, message):
  content = pth.dictionary(x=pth.tensor(size, 0, (2,), (1,), key))
  path = pth.write(tmp_path / "x.pth", content, data_0=VALUES.tobytes())
  with pytest.raises(convert.ConvertError, match=message):
    read(path)


def test_compressed(tmp_path):
  # A few compressed bytes could fill the memory.
  path = pth.write(tmp_path / "x.pth", b"}", zipfile.ZIP_DEFLATED)
  with pytest.raises(convert.ConvertError, match="compressed"):
    torch_file.load(path)


def test_encrypted(tmp_path):
  path = pth.write(tmp_path / "x.pth", b"}")
  content = bytearray(path.read_bytes())
  content[content.index(b"PK\1\2") + 8] |= 1
  path.write_bytes(content)
  with pytest.raises(convert.ConvertError, match="encrypted"):
    torch_file.load(path)


def test_foreign_zip(tmp_path):
  np.savez(tmp_path / "x.npz", x=VALUES)
  with pytest.raises(convert.ConvertError, match=r"0 files data\.pkl"):
    torch_file.load(tmp_path / "x.npz")


TWO = pth.dictionary(
  a=pth.tensor(3, 1, (2,), (1,), key="first"),
  b=pth.tensor(6, 0, (2, 3), (1, 2), key="second"),
)
FIRST = np.arange(3, dtype="<f4").tobytes()
SECOND = np.arange(6, dtype="<f4").tobytes()


def test_before_pytorch_1_6(tmp_path):
  # The values have another order than the tensors.
  path = pth.write_old(tmp_path / "x.pth", TWO, second=SECOND, first=FIRST)
  tensors = torch_file.load(path)
  assert {name: tensor.shape for name, tensor in tensors.items()} == {
    "a": (2,),
    "b": (2, 3),
  }
  values = torch_file.read(path, tensors)
  np.testing.assert_array_equal(values["a"], [1, 2])
  np.testing.assert_array_equal(values["b"], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"second": SECOND[:-4]}, "second has 5 values, not 6"),
    ({"third": b""}, "list of values"),
    ({"machine": {"little_endian": False}}, "not little-endian"),
  ],
)
def test_damage_before_pytorch_1_6(tmp_path, changes, message):
  storages = {"first": FIRST, "second": SECOND} | changes
  path = pth.write_old(tmp_path / "x.pth", TWO, **storages)
  with pytest.raises(convert.ConvertError, match=message):
    torch_file.read(path, torch_file.load(path))


def test_every_truncation_before_pytorch_1_6(tmp_path):
  path = pth.write_old(tmp_path / "x.pth", TWO, first=FIRST, second=SECOND)
  tensors, content = torch_file.load(path), path.read_bytes()
  for length in range(len(content)):
    path.write_bytes(content[:length])
    with pytest.raises(convert.ConvertError):
      torch_file.read(path, tensors)


def test_a_pickle_that_is_no_pth(tmp_path):
  path = tmp_path / "x.pth"
  path.write_bytes(3 * pickle.dumps(1, protocol=2))
  with pytest.raises(convert.ConvertError, match="not begin as PyTorch's"):
    torch_file.load(path)


def test_missing(tmp_path):
  with pytest.raises(convert.ConvertError, match="No such file"):
    torch_file.load(tmp_path / "x.pth")


def test_tensors_that_are_all_of_one_storage(tmp_path):
  # Together the tensors are a thousand times as large as the file.
  tensors = {f"x{i}": pth.tensor(2**14, 0, (2**14,), (1,)) for i in range(1000)}
  content = pth.dictionary(**tensors)
  path = pth.write(tmp_path / "x.pth", content, data_0=bytes(2**16))
  with pytest.raises(convert.ConvertError, match="more than the file has"):
    read(path)


@pytest.mark.parametrize(
  "instructions, message",
  [
    (b"}" * 300_001, "longer than any"),
    (b"(" * 150_000 + b"}" * 150_000, "longer than any"),
    (b"X" + b"\xff" * 4, "bytes"),
    (b"\x8d" + b"\xff" * 7 + b"\x0f", "bytes|maxsize"),
    (b"\x8b" + b"\xff" * 3 + b"\x7f", "not enough data"),
    (b"L" + b"9" * 9999 + b"L\n", "limit"),
  ],
)
def test_claims_of_memory(tmp_path, instructions, message):
  # The pickle is in a zip, or it begins an old file, which is not read whole.
  old = tmp_path / "old.pth"
  old.write_bytes(b"\x80\x02" + instructions)
  new = pth.write(tmp_path / "new.pth", instructions)
  for path in (old, new):
    with (
      memory.claims_less_than(2e8),
      pytest.raises(convert.ConvertError, match=message),
    ):
      torch_file.load(path)


def test_keys_that_would_be_compared_for_ever(tmp_path):
  # Comparing these two towers of pairs takes 2**100 comparisons.
  tower = b")q\x00" + b"h\x00h\x00\x86q\x00" * 100
  path = pth.write_old(tmp_path / "x.pth", TWO, first=FIRST, second=SECOND)
  keys = pickle.dumps(["first", "second"], 2)
  content = path.read_bytes()
  assert keys in content
  towers = b"\x80\x02](" + tower + tower + b"e."
  path.write_bytes(content.replace(keys, towers))
  with pytest.raises(convert.ConvertError, match="holds no names"):
    torch_file.load(path)


def test_sizes_of_the_zip(tmp_path):
  path = pth.write(tmp_path / "x.pth", b"}")
  content = bytearray(path.read_bytes())
  start = content.index(b"PK\1\2")
  content[start + 24 : start + 28] = (2**31).to_bytes(4, "little")
  path.write_bytes(content)
  with pytest.raises(convert.ConvertError, match="has two sizes"):
    torch_file.load(path)
  content[start + 20 : start + 24] = (2**31).to_bytes(4, "little")
  path.write_bytes(content)
  with pytest.raises(convert.ConvertError, match="larger than the file"):
    torch_file.load(path)
