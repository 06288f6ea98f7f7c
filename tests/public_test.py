"""The public face of the package, which is loaded when it is used."""

import subprocess
import sys
import types

import child
import pytest

import hatebm_jax

HEAVY = ("jax", "flax", "tensorflow", "sklearn", "matplotlib", "ml_collections")


def loaded_after(code):
  """Returns the modules that a new process has loaded after some code."""
  printed = subprocess.run(
    [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
    cwd=child.ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  return set(printed.split())


def test_the_import_is_light():
  loaded = loaded_after("import hatebm_jax; dir(hatebm_jax)")
  assert not loaded & set(HEAVY)
  assert not [name for name in loaded if name.startswith("hatebm_jax.")]


def test_a_name_loads_what_it_needs():
  loaded = loaded_after("import hatebm_jax; hatebm_jax.Generator")
  assert {"jax", "hatebm_jax.networks"} <= loaded
  assert "hatebm_jax.train" not in loaded


@pytest.mark.parametrize(
  "name",
  [
    *("langevin", "energy", "models", "data"),
    *("metrics", "sample", "train", "convert"),
  ],
)
def test_modules(name):
  module = getattr(hatebm_jax, name)
  assert isinstance(module, types.ModuleType)
  assert module.__name__ == f"hatebm_jax.{name}"


def test_classes():
  from hatebm_jax import Generator, Hat, networks

  assert Generator is networks.Generator and Hat is networks.Hat


def test_all_names_are_listed_and_exist():
  assert set(hatebm_jax.__all__) <= set(dir(hatebm_jax))
  assert len(hatebm_jax.__all__) == 10
  for name in hatebm_jax.__all__:
    assert getattr(hatebm_jax, name) is not None


def test_other_names_are_an_error():
  with pytest.raises(AttributeError, match=r"'hatebm_jax' has no .*'nothing'"):
    _ = hatebm_jax.nothing
  with pytest.raises(ImportError):
    from hatebm_jax import nothing  # noqa: F401
