"""What a converter reads is written as .npz and read back unchanged."""

import pathlib

import jax
import numpy as np
import pytest

from hatebm_jax import convert

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures" / "parity"
SOURCES = sorted(
  path.relative_to(FIXTURES).with_suffix("").as_posix()
  if path.suffix == ".index"
  else path.relative_to(FIXTURES).as_posix()
  for path in (*FIXTURES.glob("*/*.index"), *FIXTURES.glob("*/*.pth"))
)


def test_all_kinds_of_networks_are_there():
  files = {name.partition("/")[2] for name in SOURCES}
  assert {"ebm.ckpt", "gen.ckpt", "inf.ckpt", "netG.pth", "netD.pth"} <= files


@pytest.mark.parametrize("name", SOURCES)
def test_round_trip(tmp_path, name):
  # tests/convert/npz_test.py has the Inception network.
  if name.endswith(".pth"):
    module, variables = convert.from_mimicry(FIXTURES / name)
  else:
    module, variables = convert.from_tf2(FIXTURES / name, out_factor=2.0)
  convert.save_npz(tmp_path / "net.npz", module, variables)
  loaded_module, loaded = convert.load_npz(tmp_path / "net.npz")
  assert loaded_module == module
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)
