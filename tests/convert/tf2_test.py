import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hatebm_jax import convert
from hatebm_jax.models.decoder import Decoder
from hatebm_jax.models.encoder import Encoder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def copy(name, folder):
  """Copies a fixture, as in sngan32/ebm.ckpt; returns its new prefix."""
  for part in (FIXTURES / name).parent.glob(f"{Path(name).name}.*"):
    shutil.copy(part, folder)
  return folder / Path(name).name


def truncate(path, size):
  path.write_bytes(path.read_bytes()[:size])


def read(name):
  """Returns a fixture's variables by name."""
  tf = pytest.importorskip("tensorflow")

  reader = tf.train.load_checkpoint(str(FIXTURES / name))
  return {
    key.removesuffix(SUFFIX): reader.get_tensor(key)
    for key in reader.get_variable_to_shape_map()
    if key.endswith(SUFFIX)
  }


def write(prefix, variables):
  """Writes variables as `save_weights` does, without its object graph."""
  tf = pytest.importorskip("tensorflow")

  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=[name + SUFFIX for name in variables],
    shape_and_slices=[""] * len(variables),
    tensors=[tf.constant(value) for value in variables.values()],
  )
  return prefix


@pytest.mark.parametrize(
  ("name", "widths", "num_downs"),
  [
    ("sngan32", (16,) * 4, 2),
    ("sngan64", (4, 8, 16, 32, 64), 5),
    ("sngan128", (4, 8, 16, 32, 64, 64), 5),
    ("decoder32", (16,) * 4, 2),
  ],
)
def test_architecture_of_hats(name, widths, num_downs):
  module, variables = convert.from_tf2(FIXTURES / name / "ebm.ckpt")
  assert (module.widths, module.num_downs) == (widths, num_downs)
  assert list(variables) == ["params"]
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
  ("name", "base_width", "widths", "out_factor"),
  [
    ("sngan32", 16, (16, 16, 16), 2.0),
    ("sngan64", 64, (32, 16, 8, 4), 1.0),
    ("sngan128", 64, (64, 32, 16, 8, 4), 2.0),
  ],
)
def test_architecture_of_generators(name, base_width, widths, out_factor):
  path = FIXTURES / name / "gen.ckpt"
  module, variables = convert.from_tf2(path, out_factor=out_factor)
  assert (module.base_width, module.widths) == (base_width, widths)
  assert module.channels == 3
  assert module.out_factor == out_factor
  assert sorted(variables) == ["batch_stats", "params"]


def test_architecture_of_the_autoencoder():
  path = FIXTURES / "decoder32" / "gen.ckpt"
  decoder, variables = convert.from_tf2(path, out_factor=2.0)
  assert decoder == Decoder(widths=(16,) * 4, out_factor=2.0)
  assert sorted(variables) == ["batch_stats", "params"]
  encoder, variables = convert.from_tf2(FIXTURES / "decoder32" / "inf.ckpt")
  assert encoder == Encoder(widths=(16,) * 4)
  assert list(variables) == ["params"]


def test_other_width_and_channels(tmp_path):
  variables = read("sngan32/ebm.ckpt")
  grey = {"conv_1/conv_1/kernel", "conv_1/sc/kernel"}

  def resize(name, value):
    shape = [24 if size == 16 else size for size in value.shape]
    if name in grey:
      shape[2] = 1
    return np.ones(shape, np.float32)

  variables = {name: resize(name, value) for name, value in variables.items()}
  module, params = convert.from_tf2(write(tmp_path / "ebm.ckpt", variables))
  assert module.widths == (24,) * 4
  energy = jax.eval_shape(module.apply, params, np.zeros((2, 32, 32, 1)))
  assert energy.shape == (2,)


@pytest.mark.parametrize("name", ["sngan32", "sngan64", "decoder32"])
def test_out_factor_is_never_guessed(name):
  path = FIXTURES / name / "gen.ckpt"
  for out_factor in (1.0, 2.0):
    module, _ = convert.from_tf2(path, out_factor=out_factor)
    assert module.out_factor == out_factor
  with pytest.raises(
    convert.ConvertError,
    match=r"2 for synthesis \(CIFAR-10, CelebA, .*1 for refinement \(CIFAR-10",
  ):
    convert.from_tf2(path)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_path_of_one_file(suffix):
  path = str(FIXTURES / "sngan32" / "ebm.ckpt")
  assert convert.from_tf2(path + suffix)[0] == convert.from_tf2(path)[0]


def test_path_with_signs_that_shells_expand(tmp_path):
  folder = tmp_path / "[a]*?"
  folder.mkdir()
  prefix = copy("sngan32/ebm.ckpt", folder)
  assert convert.from_tf2(prefix)[0].widths == (16,) * 4


@pytest.mark.parametrize("size", [0, 100, 1400])
def test_truncated_index(tmp_path, size):
  prefix = copy("sngan32/ebm.ckpt", tmp_path)
  truncate(tmp_path / "ebm.ckpt.index", size)
  with pytest.raises(convert.ConvertError, match="damaged or foreign"):
    convert.from_tf2(prefix)


def test_truncated_data(tmp_path):
  prefix = copy("sngan32/ebm.ckpt", tmp_path)
  truncate(tmp_path / "ebm.ckpt.data-00000-of-00001", 40_000)
  with pytest.raises(convert.ConvertError, match=r"found 40000 in 1\. Copy"):
    convert.from_tf2(prefix)


def test_missing_data(tmp_path):
  prefix = copy("sngan32/ebm.ckpt", tmp_path)
  (tmp_path / "ebm.ckpt.data-00000-of-00001").unlink()
  with pytest.raises(convert.ConvertError, match="found 0 in 0"):
    convert.from_tf2(prefix)


def test_damaged_data(tmp_path):
  prefix = copy("sngan32/ebm.ckpt", tmp_path)
  data = tmp_path / "ebm.ckpt.data-00000-of-00001"
  content = bytearray(data.read_bytes())
  content[20_000] ^= 1
  data.write_bytes(content)
  with pytest.raises(
    convert.ConvertError, match=r"values of .* cannot be read"
  ):
    convert.from_tf2(prefix)


def test_missing_file(tmp_path):
  with pytest.raises(convert.ConvertError, match=r"no file .*ebm\.ckpt\.index"):
    convert.from_tf2(tmp_path / "ebm.ckpt")


def test_foreign_file(tmp_path):
  (tmp_path / "ebm.ckpt.index").write_text("not a checkpoint\n" * 50)
  with pytest.raises(convert.ConvertError, match="damaged or foreign"):
    convert.from_tf2(tmp_path / "ebm.ckpt")


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({"encoder/kernel": np.zeros((3, 3), np.float32)}, r"found \['encoder'\]"),
    ({"block1/conv_1/bias": np.zeros(4, np.float32)}, "4 blocks, found 1"),
  ],
)
def test_foreign_network(tmp_path, variables, message):
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_tf2(write(tmp_path / "ebm.ckpt", variables))


@pytest.mark.parametrize(
  ("name", "missing", "message"),
  [
    ("sngan32/ebm", "lin_5/kernel", r"lin_5/kernel \(16, 1\) is missing"),
    (
      "sngan32/ebm",
      "conv_1/conv_1/kernel",
      "expected conv_1/conv_1/kernel with 4",
    ),
    (
      "sngan32/ebm",
      "block2/sc",
      r"block2/sc/bias \(16,\) is missing, and 1 arrays",
    ),
    ("sngan32/ebm", "block4", "found 3"),
    ("sngan32/gen", "bn_5/moving_mean", r"bn_5/moving_mean \(16,\) is missing"),
    ("sngan32/gen", "block4", "found 2"),
    ("decoder32/gen", "bn_5/gamma", r"bn_5/gamma \(16,\) is missing"),
    ("decoder32/gen", "conv_5", "expected conv_5/kernel with 4 axes, found no"),
    ("decoder32/gen", "block4", "found 3"),
    ("decoder32/inf", "block2/sc", r"block2/sc/bias \(16,\) is missing"),
    ("decoder32/inf", "conv2latent", "expected conv_5/kernel with 4 axes"),
  ],
)
def test_missing_variable(tmp_path, name, missing, message):
  variables = {
    key: value
    for key, value in read(f"{name}.ckpt").items()
    if not key.startswith(missing)
  }
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_tf2(write(tmp_path / "ebm.ckpt", variables), out_factor=2.0)


@pytest.mark.parametrize(
  ("name", "changed", "message"),
  [
    ("ebm", {"block3/conv_2/bias": np.zeros(8)}, r"\(8,\), expected \(16,\)"),
    ("ebm", {"block3/sc/bias": np.zeros(16)}, "has no block3/sc/bias"),
    ("ebm", {"conv_1/conv_1/kernel": np.zeros(16)}, r"4 axes, found \(16,\)"),
    ("gen", {"lin_1/kernel": np.zeros((128, 250))}, r"4\*4 numbers, found"),
  ],
)
def test_wrong_variable(tmp_path, name, changed, message):
  changed = {key: value.astype(np.float32) for key, value in changed.items()}
  variables = read(f"sngan32/{name}.ckpt") | changed
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_tf2(write(tmp_path / "ebm.ckpt", variables), out_factor=2.0)


def test_wrong_type(tmp_path):
  variables = read("sngan32/ebm.ckpt") | {"lin_5/kernel": np.zeros((16, 1))}
  with pytest.raises(convert.ConvertError, match="type float64, expected"):
    convert.from_tf2(write(tmp_path / "ebm.ckpt", variables))


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "hatebm_jax.convert", *map(str, arguments)],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )


def test_command(tmp_path):
  source, out = FIXTURES / "sngan32" / "gen.ckpt", tmp_path / "gen.npz"
  result = run_command("tf2", source, out, "--out_factor", "1")
  assert (result.returncode, result.stderr) == (0, "")
  module, variables = convert.load_npz(out)
  expected_module, expected = convert.from_tf2(source, out_factor=1.0)
  assert module == expected_module
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize(
  ("flags", "out_factor"),
  [
    (["--config=configs/celeba64.py"], 2.0),
    (["--config=celeba64_refine"], 1.0),
    (["--config=celeba64", "--config.generator.out_factor=1.5"], 1.5),
  ],
)
def test_command_takes_out_factor_of_a_config(tmp_path, flags, out_factor):
  source, out = FIXTURES / "sngan64" / "gen.ckpt", tmp_path / "gen.npz"
  result = run_command("tf2", source, out, *flags)
  assert (result.returncode, result.stderr) == (0, "")
  assert convert.load_npz(out)[0].out_factor == out_factor


@pytest.mark.parametrize(
  ("flags", "status", "message"),
  [
    ([], 1, "Give --out_factor=2 or --out_factor=1, or the experiment's"),
    (["--config=celeba65"], 1, "Did you mean celeba64?"),
    (["--out_factor=2", "--config=celeba64"], 2, "not allowed with"),
    (["--config.generator.out_factor=1"], 2, "unexpected arguments: --config."),
    (["--config=celeba64", "--factor=1"], 2, "unexpected arguments: --factor"),
  ],
)
def test_command_without_a_clear_out_factor(tmp_path, flags, status, message):
  source, out = FIXTURES / "sngan64" / "gen.ckpt", tmp_path / "gen.npz"
  result = run_command("tf2", source, out, *flags)
  assert result.returncode == status and message in result.stderr
  assert not out.exists()


def test_command_reports_a_bad_file_in_one_line(tmp_path):
  prefix = copy("sngan32/ebm.ckpt", tmp_path)
  truncate(tmp_path / "ebm.ckpt.index", 700)
  result = run_command("tf2", prefix, tmp_path / "hat.npz")
  assert result.returncode == 1
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert not (tmp_path / "hat.npz").exists()
