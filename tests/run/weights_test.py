"""The file of a release's weights: whole, in order, and nothing claimed."""

import json
import struct

import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest

from hatebm_jax.run import checkpoint, weights

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ARRAYS = {
  "hat/params/kernel": KERNEL,
  # The memory of these does not lie in the order of their elements.
  "hat/params/transposed": KERNEL.transpose(2, 0, 1),
  "hat/params/strided": KERNEL[:, ::2, ::-1],
  "hat/params/scalar": np.float32(3),
  "hat/params/half": KERNEL.astype(np.float16),
}


def abstract(**changes):
  params = {
    name.rpartition("/")[2]: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in ARRAYS.items()
  }
  return {"hat": {"params": params | changes}}


@pytest.fixture(name="path")
def saved(tmp_path):
  weights.save(tmp_path, 7, ARRAYS)
  return tmp_path


def test_what_is_saved_is_read_bit_for_bit(path):
  with weights.opened(path) as release:
    assert isinstance(release, weights.Release)
    assert release.steps() == [7] and release.newest_whole() == 7
    assert release.shapes(7) == {k: np.shape(x) for k, x in ARRAYS.items()}
    found = release.restore(7, abstract())["hat"]["params"]
  for name, expected in ARRAYS.items():
    array = found[name.rpartition("/")[2]]
    assert isinstance(array, np.ndarray) and array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


def test_a_transposed_kernel_of_jax(tmp_path):
  # The device may keep the layout of the transposed array.
  kernel = jax.jit(lambda x: jnp.transpose(x, (3, 2, 0, 1)))(
    np.random.default_rng(0).normal(size=(3, 3, 5, 4)).astype(np.float32)
  )
  weights.save(tmp_path, 0, {"kernel": jax.device_get(kernel)})
  leaf = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
  found = weights.Release(tmp_path).restore(0, {"kernel": leaf})["kernel"]
  np.testing.assert_array_equal(found, kernel)


def test_arrays_that_are_skipped_need_not_be_there(path):
  wanted = abstract(other=checkpoint.SKIPPED, half=checkpoint.SKIPPED)
  found = weights.Release(path).restore(7, wanted)["hat"]["params"]
  assert found["other"] is found["half"] is checkpoint.SKIPPED
  np.testing.assert_array_equal(found["kernel"], KERNEL)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"kernel": jax.ShapeDtypeStruct((2, 3, 5), np.float32)},
      r"hat/params/kernel: expected float32 \(2, 3, 5\), found float32 \(2, 3,",
    ),
    (
      {"half": jax.ShapeDtypeStruct(KERNEL.shape, np.float32)},
      r"hat/params/half: expected float32 .* found float16",
    ),
    (
      {"zz": jax.ShapeDtypeStruct((1,), np.float32)},
      r"hat/params/zz: expected float32 \(1,\), found there is none",
    ),
  ],
)
def test_arrays_that_do_not_fit(path, changes, message):
  with pytest.raises(weights.ReleaseError, match=message):
    weights.Release(path).restore(7, abstract(**changes))


def test_a_release_without_averages_says_so(path):
  leaf = jax.ShapeDtypeStruct((1,), np.float32)
  with pytest.raises(weights.ReleaseError, match=r"no averaged .*weights=raw"):
    weights.Release(path).restore(7, {"hat": {"average": {"kernel": leaf}}})


def test_types_that_cannot_be_stored(tmp_path):
  with pytest.raises(weights.ReleaseError, match="x has the type bfloat16"):
    weights.save(tmp_path, 0, {"x": np.zeros(2, jnp.bfloat16)})
  assert not weights.is_release(tmp_path)


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_file_that_is_cut_off(path, cut):
  file = path / weights.FILE
  file.write_bytes(file.read_bytes()[:cut])
  with pytest.raises(weights.ReleaseError, match="damaged or foreign"):
    weights.opened(path)


def test_one_bit_of_a_weight(path):
  file = path / weights.FILE
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)
  with pytest.raises(weights.ReleaseError, match="SHA-256 of its arrays"):
    weights.opened(path).newest_whole()


def write(path, header, data=b""):
  text = json.dumps(header).encode()
  content = struct.pack("<Q", len(text)) + text + data
  (path / weights.FILE).write_bytes(content)


@pytest.mark.parametrize(
  ("header", "message"),
  [
    ({}, "no number of training steps"),
    ({"__metadata__": {"step": "-1"}}, "no number of training steps"),
    ({"__metadata__": {"step": "9" * 99}}, "no number of training steps"),
    (
      {
        "__metadata__": {"step": "1"},
        "x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
      },
      "damaged or foreign",
    ),
    (
      {
        "__metadata__": {"step": "1"},
        "x": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]},
      },
      "x of the type I64",
    ),
  ],
)
def test_headers_that_claim_something(tmp_path, header, message):
  write(tmp_path, header)
  refused = pytest.raises(weights.ReleaseError, match=message)
  with memory.fills_less_than(50e6), refused:
    weights.opened(tmp_path)


def test_a_folder_without_weights_is_opened_as_a_run(tmp_path):
  assert not weights.is_release(tmp_path)
  with weights.opened(tmp_path) as saved:
    assert isinstance(saved, checkpoint.Checkpoints) and saved.steps() == []
