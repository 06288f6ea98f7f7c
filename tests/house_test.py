"""The structure of the package: sizes, and arrows that point one way."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "hatebm_jax"
MODULES = {
  ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
    ".__init__"
  ): path
  for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


# What the rooms below must not import.
BEYOND = {"chains", "evaluation", "objectives", "report", "sample", "train"}


def imports(name):
  """Returns the modules of the package that a module imports, anywhere."""
  found = set()
  for node in ast.walk(TREES[name]):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in MODULES else node.module)
  return {x for x in found if x in MODULES} - {name}


GRAPH = {name: imports(name) for name in MODULES}


def users(prefix):
  """Returns the modules that import a module of the package or below it."""
  return {
    name
    for name, found in GRAPH.items()
    if any(x == prefix or x.startswith(f"{prefix}.") for x in found)
  }


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_are_short(name):
  num_lines = MODULES[name].read_text().count("\n")
  assert num_lines <= 400
  for node in ast.walk(TREES[name]):
    if isinstance(node, ast.FunctionDef):
      length = node.end_lineno - node.lineno + 1
      assert length <= 50, f"{node.name} has {length} lines"


def test_no_cycle_of_imports():
  # It raises a CycleError that names the cycle. A package imports the modules
  # that its __init__ names; a module does not import the package it lies in.
  list(graphlib.TopologicalSorter(GRAPH).static_order())


def room(name):
  """Returns the folder or the file of the package that a module lies in.

  A `__main__` is a command. Nothing imports it, so it stands above all rooms.
  """
  if name.endswith(".__main__"):
    return name
  return name.split(".")[1] if "." in name else name


def test_no_cycle_of_rooms():
  rooms = {}
  for name, found in GRAPH.items():
    # The package's own __init__ is above and below all rooms.
    targets = {room(x) for x in found} - {room(name), "hatebm_jax"}
    rooms.setdefault(room(name), set()).update(targets)
  list(graphlib.TopologicalSorter(rooms).static_order())


def test_arrows_point_one_way():
  assert not {x for x in users("hatebm_jax.models") if x.endswith("langevin")}
  langevin = GRAPH["hatebm_jax.langevin"]
  assert langevin == {"hatebm_jax.energy", "hatebm_jax.rng"}
  for name, found in GRAPH.items():
    if room(name) in ("models", "metrics", "data", "run", "config"):
      beyond = {
        "train",
        "sample",
        "evaluation",
        "objectives",
        "report",
        "chains",
      }
      assert not {x for x in found if x.split(".")[1] in beyond}, name


@pytest.mark.parametrize(
  ("library", "allowed"),
  [
    ("orbax", "hatebm_jax.run."),
    ("safetensors", "hatebm_jax.run."),
    ("tensorflow", "hatebm_jax.data."),
    ("tensorflow_datasets", "hatebm_jax.data."),
  ],
)
def test_a_library_is_imported_in_one_room(library, allowed):
  for name, tree in TREES.items():
    for node in ast.walk(tree):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
      if any(x.split(".")[0] == library for x in names):
        assert name.startswith(allowed), name


def test_importing_the_package_imports_nothing_heavy():
  code = (
    "import sys, hatebm_jax; "
    "print([x for x in ('jax', 'tensorflow', 'sklearn', 'matplotlib') "
    "if x in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout.strip() == "[]", result.stderr
