import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pth
import pytest

from hatebm_jax import convert
from hatebm_jax.convert import torch_file
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.generator import Generator

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
GENERATOR = FIXTURES / "mimicry32" / "netG.pth"
DISCRIMINATOR = FIXTURES / "mimicry32" / "netD.pth"


@pytest.mark.parametrize(
  ("name", "base_width", "widths"),
  [
    ("mimicry32", 16, (16, 16, 16)),
    ("mimicry64", 64, (32, 16, 8, 4)),
    ("mimicry128", 64, (64, 32, 16, 8, 4)),
  ],
)
def test_architecture_of_generators(name, base_width, widths):
  module, variables = convert.from_mimicry(FIXTURES / name / "netG.pth")
  assert module == Generator(base_width, widths, norm_epsilon=1e-5)
  assert sorted(variables) == ["batch_stats", "params"]


@pytest.mark.parametrize(
  ("name", "widths", "num_downs"),
  [
    ("mimicry32", (16,) * 4, 2),
    ("mimicry64", (4, 8, 16, 32, 64), 5),
    ("mimicry128", (4, 8, 16, 32, 64, 64), 5),
  ],
)
def test_architecture_of_discriminators(name, widths, num_downs):
  module, variables = convert.from_mimicry(FIXTURES / name / "netD.pth")
  assert module == Discriminator(widths, num_downs)
  assert sorted(variables) == ["params", "spectral"]
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


def test_layout():
  tensors = torch_file.load(DISCRIMINATOR)["model_state_dict"]
  arrays = torch_file.read(DISCRIMINATOR, tensors)
  _, variables = convert.from_mimicry(DISCRIMINATOR)
  params = variables["params"]["block_0"]["conv_0"]
  spectral = variables["spectral"]["block_0"]["conv_0"]
  kernel = arrays["block1.c1.weight_orig"]  # [out, in, height, width]
  assert params["kernel"][0, 1, 2, 5] == kernel[5, 2, 0, 1]
  v = arrays["block1.c1.weight_v"].reshape(kernel.shape[1:])
  assert spectral["v"][0, 1, 2] == v[2, 0, 1]
  np.testing.assert_array_equal(spectral["u"], arrays["block1.c1.weight_u"])
  np.testing.assert_array_equal(
    variables["params"]["head"]["kernel"], arrays["l5.weight_orig"].T
  )


def test_bare_state_dict(tmp_path):
  def change(name, content):
    if name != "data.pkl":
      return content
    start = content.index(b"ccollections\nOrderedDict")
    return (
      content[start : content.index(pth.text("optimizer_state_dict"))] + b"."
    )

  path = pth.edit(DISCRIMINATOR, tmp_path / "netD.pth", change)
  assert "model_state_dict" not in torch_file.load(path)
  module, variables = convert.from_mimicry(path)
  expected_module, expected = convert.from_mimicry(DISCRIMINATOR)
  assert module == expected_module
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


def assert_is(source, path, key=None):
  """Asserts that a file holds the same network as a fixture."""
  module, variables = convert.from_mimicry(path, key)
  expected_module, expected = convert.from_mimicry(source)
  assert module == expected_module
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


def translated(source, path, **kwargs):
  """Writes a fixture with a changed description, by `pth.translate`."""

  def change(name, content):
    if name == "data.pkl":
      return pth.translate(content, **kwargs)
    return content

  return pth.edit(source, path, change)


@pytest.mark.parametrize("source", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickle_protocols(tmp_path, source, protocol):
  assert_is(source, translated(source, tmp_path / "x", protocol=protocol))


@pytest.mark.parametrize("source", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize(
  "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "netG.", "model.g."]
)
def test_prefixes_of_names(tmp_path, source, prefix):
  def change(text):
    return prefix + text if "." in text else text

  assert_is(source, translated(source, tmp_path / "x.pth", change=change))


def test_wrappers_inside_a_network(tmp_path):
  change = lambda text: text.replace("block2.", "block2._orig_mod.")
  path = translated(GENERATOR, tmp_path / "x.pth", change=change)
  assert_is(GENERATOR, path)


@pytest.mark.parametrize("name", ["state_dict", "model", "netG", "ema"])
def test_names_of_state_dicts(tmp_path, name):
  change = lambda text: name if text == "model_state_dict" else text
  path = translated(GENERATOR, tmp_path / "x.pth", change=change)
  assert name in torch_file.load(path)
  assert_is(GENERATOR, path)


def several(tmp_path):
  """Writes a .pth with two one-tensor networks under the names a and b.m."""
  one = pth.dictionary(**{"l1.weight": pth.tensor(4, 0, (2, 2), (2, 1))})
  content = pth.dictionary(a=one, b=pth.dictionary(m=one))
  return pth.write(tmp_path / "x.pth", content, data_0=bytes(16))


def test_several_networks_ask_for_a_choice(tmp_path):
  path = several(tmp_path)
  with pytest.raises(convert.ConvertError, match=r"'a', 'b\.m'.*--key='a'"):
    convert.from_mimicry(path)
  with pytest.raises(convert.ConvertError, match="called 'c', found 'a'"):
    convert.from_mimicry(path, "c")
  # The choice is followed; the network is too small to be a generator.
  with pytest.raises(convert.ConvertError, match="a generator"):
    convert.from_mimicry(path, "b.m")


def test_a_network_is_chosen_by_its_key(tmp_path):
  change = lambda text: f"netG.{text}" if "." in text else text
  path = translated(GENERATOR, tmp_path / "x.pth", change=change)
  assert_is(GENERATOR, path, "model_state_dict.netG")


@pytest.mark.parametrize(
  ("kind", "dtype", "tolerance"),
  [("Double", "f8", 0), ("Half", "f2", 2**-10), ("BFloat16", "u2", 2**-7)],
)
def test_other_precisions(tmp_path, kind, dtype, tolerance):
  tensors = torch_file.load(GENERATOR)["model_state_dict"]
  floats = {x.storage.key for x in tensors.values() if x.dtype == np.float32}

  def change(name, content):
    if name == "data.pkl":
      return content.replace(b"FloatStorage", f"{kind}Storage".encode())
    if name.removeprefix("data/") not in floats:
      return content if not name.startswith("data/") else bytes(len(content))
    values = np.frombuffer(content, "<f4")
    if kind == "BFloat16":
      return values.astype(jnp.bfloat16).tobytes()
    return values.astype(dtype).tobytes()

  path = pth.edit(GENERATOR, tmp_path / "x.pth", change)
  module, variables = convert.from_mimicry(path)
  expected_module, expected = convert.from_mimicry(GENERATOR)
  assert module == expected_module
  compare = lambda a, b: np.testing.assert_allclose(a, b, tolerance, 1e-7)
  jax.tree.map(compare, variables, expected)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


def test_one_dictionary_that_is_named_for_ever(tmp_path):
  # Each of 20,000 entries of `a` is the same dictionary of 20,000 entries.
  entries = b"".join(pth.text(f"k{i}") + b"N" for i in range(20_000))
  refer = b"".join(pth.text(f"k{i}") + b"h\x00" for i in range(20_000))
  inner = b"}q\x00(" + entries + b"u"
  content = pth.dictionary(a=inner, b=b"}(" + refer + b"u")
  path = pth.write(tmp_path / "x.pth", content)
  with pytest.raises(convert.ConvertError, match="expected a state_dict"):
    convert.from_mimicry(path)


def rename(old, new):
  """Returns a change for `pth.edit` that renames tensors, by equal lengths."""
  assert len(old) == len(new)

  def change(name, content):
    if name == "data.pkl":
      assert old.encode() in content
      return content.replace(old.encode(), new.encode())
    return content

  return change


@pytest.mark.parametrize(
  ("source", "old", "new", "message"),
  [
    (GENERATOR, "l1.bias", "l1.bios", r"l1.bias \(256,\) is missing"),
    (GENERATOR, "l1.weight", "l1.weighs", "expected l1.weight with 2 axes"),
    (GENERATOR, "block4.", "black4.", "3 or 4 or 5 blocks, found 2"),
    (GENERATOR, "c5.weight", "c6.weight", "expected c5.weight with 4 axes"),
    (GENERATOR, "l1.", "lx.", "expected the tensors of torch-mimicry"),
    (DISCRIMINATOR, "l5.bias", "l5.bios", r"l5.bias \(1,\) is missing"),
    (DISCRIMINATOR, "weight_u", "weight_x", r"weight_u \(16,\) is missing"),
    (DISCRIMINATOR, "block4.", "black4.", "found 3"),
    (DISCRIMINATOR, "block1.c1.weight_orig", "block1.c1.weight_olig", "4 axes"),
    (DISCRIMINATOR, "block", "black", "expected the tensors of torch-mimicry"),
    (DISCRIMINATOR, "FloatStorage", "FloatSto_age", "FloatSto_age', which is"),
  ],
)
def test_wrong_tensors(tmp_path, source, old, new, message):
  path = pth.edit(source, tmp_path / "net.pth", rename(old, new))
  with pytest.raises(convert.ConvertError, match=message) as error:
    convert.from_mimicry(path)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("source", "share"),
  [(GENERATOR, 0.0), (GENERATOR, 0.5), (DISCRIMINATOR, 0.9)],
)
def test_truncated(tmp_path, source, share):
  content = source.read_bytes()
  path = tmp_path / "net.pth"
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(convert.ConvertError, match="damaged"):
    convert.from_mimicry(path)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    (lambda content: content[:-4], "bytes, not"),
    (lambda content: None, "no item named"),
  ],
)
def test_wrong_values(tmp_path, changed, message):
  path = pth.edit(
    DISCRIMINATOR,
    tmp_path / "net.pth",
    lambda name, content: changed(content) if name == "data/5" else content,
  )
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_mimicry(path)


def test_damaged(tmp_path):
  content = bytearray(GENERATOR.read_bytes())
  content[len(content) // 2] ^= 1
  path = tmp_path / "netG.pth"
  path.write_bytes(content)
  with pytest.raises(convert.ConvertError, match="Bad CRC"):
    convert.from_mimicry(path)


@pytest.mark.parametrize(
  ("instructions", "message"),
  [
    (b"K\x01", "found none"),
    (b"}", "found none"),
    (b"}" + pth.text("a") + b"}s", "found a of the type dict"),
    (
      pth.dictionary(model_state_dict=b"]"),
      "found model_state_dict of the type list",
    ),
    (pth.dictionary(l1=b"K\x01"), "found l1 of the type int"),
    (
      pth.dictionary(l1=pth.tensor(4, 0, (4,), (1,), kind="LongStorage")),
      "found l1 of the type int64",
    ),
    (
      pth.dictionary(**{"l1.weight": pth.tensor(4, 0, (2, 2), (2, 1))}),
      "found 0. Check",
    ),
  ],
)
def test_no_network(tmp_path, instructions, message):
  path = pth.write(tmp_path / "net.pth", instructions)
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_mimicry(path)


@pytest.mark.parametrize("source", [GENERATOR, DISCRIMINATOR])
def test_npz_round_trip(tmp_path, source):
  expected_module, expected = convert.from_mimicry(source)
  convert.save_npz(tmp_path / "net.npz", expected_module, expected)
  module, variables = convert.load_npz(tmp_path / "net.npz")
  assert module == expected_module
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "hatebm_jax.convert", *map(str, arguments)],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )


def test_command(tmp_path):
  result = run_command("mimicry", DISCRIMINATOR, tmp_path / "netD.npz")
  assert (result.returncode, result.stderr) == (0, "")
  assert convert.load_npz(tmp_path / "netD.npz")[0] == Discriminator(
    (16,) * 4, 2
  )


def test_command_reports_a_bad_file_in_one_line(tmp_path):
  source = tmp_path / "netG.pth"
  source.write_bytes(b"no zip")
  result = run_command("mimicry", source, tmp_path / "netG.npz")
  assert result.returncode == 1
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert not (tmp_path / "netG.npz").exists()
