import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import convert
from hatebm_jax.convert import inception
from hatebm_jax.models.decoder import Decoder
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.encoder import Encoder
from hatebm_jax.models.generator import Generator
from hatebm_jax.models.hat import Hat
from hatebm_jax.models.inception import Inception

HAT = Hat(widths=(2, 3, 3), num_downs=2)
GENERATOR = Generator(
  base_width=3, widths=(2, 4), channels=1, out_factor=2.0, norm_epsilon=1e-5
)
DECODER = Decoder(widths=(2, 3, 3), channels=1, out_factor=2.0)
ENCODER = Encoder(widths=(2, 3, 3), latent_channels=2)
DISCRIMINATOR = Discriminator(widths=(2, 3, 4), num_downs=2)


def random_variables(module, input_shape):
  structs = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros(input_shape)
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda struct: rng.normal(size=struct.shape).astype(np.float32), structs
  )


@pytest.fixture(name="path")
def saved_hat(tmp_path):
  variables = random_variables(HAT, (1, 8, 8, 3))
  convert.save_npz(tmp_path / "hat.npz", HAT, variables)
  return tmp_path / "hat.npz"


@pytest.mark.parametrize(
  ("module", "shape"),
  [
    (HAT, (1, 8, 8, 3)),
    (GENERATOR, (1, 5)),
    (DECODER, (1, 4, 4, 2)),
    (ENCODER, (1, 8, 8, 3)),
    (DISCRIMINATOR, (1, 8, 8, 3)),
    (Inception(), inception.INPUT_SHAPE),
  ],
)
def test_round_trip(tmp_path, module, shape):
  variables = random_variables(module, shape)
  path = tmp_path / "weights"
  convert.save_npz(path, module, variables)
  loaded_module, loaded = convert.load_npz(path)
  assert loaded_module == module
  assert list(tmp_path.iterdir()) == [path]
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_format(path):
  with np.load(path, allow_pickle=False) as file:
    assert json.loads(str(file["module"])) == {
      "class": "Hat",
      "attributes": {"widths": [2, 3, 3], "num_downs": 2},
    }
    assert file["params/block_0/conv_0/kernel"].shape == (3, 3, 3, 2)


def test_failed_write_leaves_the_old_file(path, monkeypatch):
  def fail(file, **arrays):
    file.write(b"half")
    raise OSError("disk full")

  before = path.read_bytes()
  monkeypatch.setattr(np, "savez", fail)
  with pytest.raises(OSError, match="disk full"):
    convert.save_npz(path, HAT, {})
  assert path.read_bytes() == before
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_truncated(path, share):
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(convert.ConvertError, match="damaged or foreign"):
    convert.load_npz(path)


def test_damaged(path):
  with np.load(path) as file:
    array = file["params/head/kernel"].tobytes()
  content = bytearray(path.read_bytes())
  content[content.index(array)] ^= 1
  path.write_bytes(content)
  with pytest.raises(convert.ConvertError, match="damaged or foreign"):
    convert.load_npz(path)


def test_missing(tmp_path):
  with pytest.raises(convert.ConvertError, match="missing"):
    convert.load_npz(tmp_path / "hat.npz")


def rewrite(path, **changes):
  """Writes the file anew with some arrays changed, or left out if None."""
  with np.load(path) as file:
    arrays = dict(file) | changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"module": None}, "damaged or foreign"),
    ({"module": np.array("{")}, "expected the description of a Hat"),
    ({"module": np.array('{"class": "os"}')}, "expected the description"),
    (
      {"module": np.array('{"class": "Hat", "attributes": {"width": 2}}')},
      "expected the description",
    ),
    (
      {
        "module": np.array(
          '{"class": "Hat", "attributes": {"widths": ["a"], "num_downs": 1}}'
        )
      },
      "expected the description",
    ),
    ({"params/head/kernel": None}, r"params/head/kernel \(3, 1\) is missing"),
    ({"params/head/kernel": np.zeros((4, 1), "f4")}, r"expected \(3, 1\)"),
    ({"params/head/kernel": np.zeros((3, 1))}, "not float32"),
    ({"params/head/bias": np.zeros(1, "f4")}, "has no params/head/bias"),
    ({"params/head/kernel": np.array([{}])}, "type object, not numbers"),
  ],
)
def test_wrong_content(path, changes, message):
  rewrite(path, **changes)
  with pytest.raises(convert.ConvertError, match=message):
    convert.load_npz(path)


def test_absurd_size_is_not_allocated(path):
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**7)},
  )
  rewrite(path, **{"params/head/kernel": None})
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("params/head/kernel.npy", header.getvalue())
  with pytest.raises(convert.ConvertError, match="128 bytes for the shape"):
    convert.load_npz(path)


@pytest.mark.parametrize(
  "description",
  [
    "[" * 100_000,
    '{"class": "Hat", "attributes": {"widths": [2, 3, 3], "num_downs": 9}}',
    '{"class": "Hat", "attributes": {"widths": [2, 3, 3], "num_downs": 1e9}}',
    '{"class": "Hat", "attributes": {"widths": [], "num_downs": 0}}',
    '{"class": "Hat", "attributes": {"widths": 3, "num_downs": true}}',
    '{"class": "Hat", "attributes": {"widths": [2, 3, 3], "num_downs": 2,'
    ' "name": "other"}}',
    json.dumps(
      {"class": "Hat", "attributes": {"widths": [2] * 999, "num_downs": 2}}
    ),
    json.dumps(
      {"class": "Hat", "attributes": {"widths": [10**30], "num_downs": 1}}
    ),
    '{"class": "Decoder", "attributes": {"widths": [2], "out_factor": NaN}}',
    '{"class": "Decoder", "attributes": {"widths": [2], "channels": 1.5}}',
  ],
)
def test_description_of_no_network(path, description):
  # A network that halves 10**9 times or has 999 blocks would take for ever.
  rewrite(path, module=np.array(description))
  with pytest.raises(convert.ConvertError, match="expected the description"):
    convert.load_npz(path)


def test_kernel_without_axes(path):
  rewrite(path, **{"params/block_0/conv_0/kernel": np.float32(1)})
  with pytest.raises(convert.ConvertError, match="4 axes"):
    convert.load_npz(path)


def test_array_of_another_program(tmp_path):
  np.savez(tmp_path / "other.npz", images=np.zeros((2, 4, 4, 3), np.float32))
  with pytest.raises(convert.ConvertError, match="damaged or foreign"):
    convert.load_npz(tmp_path / "other.npz")
