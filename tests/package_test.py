"""Checks the package's metadata against its code and the tested versions."""

import ast
import configparser
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hatebm_jax

_ROOT = pathlib.Path(__file__).parents[1]
_HASHED = _ROOT / "requirements-tested.txt"
_LOCAL = {"experiments", "hatebm_jax"} | {
  path.stem for path in (_ROOT / "tests").rglob("*.py")
}
# Names of packages whose import name differs, by import name.
_PACKAGES = {
  "PIL": "pillow",
  "absl": "absl-py",
  "orbax": "orbax-checkpoint",
  "sklearn": "scikit-learn",
  "yaml": "pyyaml",
}


@pytest.fixture(scope="module")
def metadata():
  parser = configparser.ConfigParser(comment_prefixes="#")
  parser.read(_ROOT / "setup.cfg")
  return parser


def _requirements(text):
  """Parses lines of requirements to {canonical name: [Requirement]}."""
  found = {}
  for line in text.splitlines():
    line = line.split("#")[0].strip()
    if line:
      requirement = Requirement(line)
      found.setdefault(canonicalize_name(requirement.name), []).append(
        requirement
      )
  return found


def _constraints():
  return {
    name: requirements[0]
    for name, requirements in _requirements(
      (_ROOT / "constraints.txt").read_text()
    ).items()
  }


def _imports(folder):
  """Returns {package: a file that imports it} of all foreign packages."""
  found = {}
  for path in sorted((_ROOT / folder).rglob("*.py")):
    for node in ast.walk(ast.parse(path.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
      for name in names:
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in _LOCAL:
          found[canonicalize_name(_PACKAGES.get(top, top))] = path
  return found


def _groups(metadata):
  """Returns the requirements by group: `install` or the name of an extra."""
  groups = {"install": metadata["options"]["install_requires"]}
  groups.update(metadata["options.extras_require"])
  return {name: _requirements(text) for name, text in groups.items()}


def test_version(metadata):
  assert metadata["metadata"]["version"] == "attr: hatebm_jax.__version__"
  assert re.fullmatch(r"\d+\.\d+\.\d+", hatebm_jax.__version__)
  citation = (_ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {hatebm_jax.__version__}\n" in citation


def test_every_folder_is_a_package(metadata):
  folders = {path.parent for path in (_ROOT / "hatebm_jax").rglob("*.py")}
  expected = {".".join(f.relative_to(_ROOT).parts) for f in folders}
  listed = metadata["options"]["packages"].split()
  assert listed == sorted(expected | {"hatebm_jax.configs"})
  assert metadata["options"]["package_dir"].strip() == (
    "hatebm_jax.configs = configs"
  )


@pytest.mark.parametrize("folder", ["hatebm_jax", "configs"])
def test_imports_are_declared(metadata, folder):
  declared = _groups(metadata)
  names = declared["install"]
  missing = {k: str(v) for k, v in _imports(folder).items() if k not in names}
  assert not missing, f"imported, not in install_requires: {missing}"


def test_imports_of_tests_are_declared(metadata):
  declared = _groups(metadata)
  names = {*declared["install"], *declared["test"]}
  missing = {k: str(v) for k, v in _imports("tests").items() if k not in names}
  assert not missing, f"imported, not in install_requires or [test]: {missing}"


def test_constraints_are_pins():
  for name, requirement in _constraints().items():
    specifiers = list(requirement.specifier)
    assert [s.operator for s in specifiers] == ["=="], name
    assert not requirement.url, name


@pytest.mark.parametrize("group", ["install", "test", "docs"])
def test_constraints_pin_every_requirement_in_its_range(metadata, group):
  pins = _constraints()
  for name, requirements in _groups(metadata)[group].items():
    assert name in pins, f"constraints.txt does not pin {name}"
    (pin,) = pins[name].specifier
    for requirement in requirements:
      assert requirement.specifier.contains(pin.version), (name, pin)


def _hashed():
  """Returns {canonical name: version} and checks that each has hashes."""
  entries = re.split(r"\n(?=[\w.-]+==)", _HASHED.read_text())[1:]
  found = {}
  for entry in entries:
    name, version = re.match(r"([\w.-]+)==(\S+) \\\n", entry).groups()
    hashes = entry.strip().splitlines()[1:]
    for line in hashes:
      assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert hashes, name
    found[canonicalize_name(name)] = version
  return found


def test_the_hashed_set_is_that_of_the_constraints():
  # The hashed set leaves out the extra tpu and other platforms.
  others = {"libtpu", "tensorflow"}
  expected = {
    name: next(iter(requirement.specifier)).version
    for name, requirement in _constraints().items()
    if name not in others
  }
  assert _hashed() == expected
  assert "://" not in _HASHED.read_text()


def test_licences_are_those_of_the_hashed_set():
  text = (_ROOT / "THIRD_PARTY_LICENSES.md").read_text()
  rows = re.findall(r"^\| ([\w.-]+) \| (\d\S*) \| (\S.*) \|$", text, re.M)
  assert {canonicalize_name(row[0]): row[1] for row in rows} == _hashed()
  assert not [row for row in rows if "unknown" in row[2].lower()]


def test_extras(metadata):
  extras = _groups(metadata)
  assert {"docs", "test", "tpu", "cuda"} <= set(extras)


@pytest.mark.parametrize(
  ("system", "machine", "expected"),
  [
    ("Linux", "x86_64", "tensorflow-cpu"),
    ("Linux", "aarch64", "tensorflow"),
    ("Darwin", "arm64", "tensorflow"),
    ("Windows", "AMD64", "tensorflow"),
  ],
)
def test_one_tensorflow_on_every_platform(metadata, system, machine, expected):
  environment = {"platform_system": system, "platform_machine": machine}
  requirements = _groups(metadata)["install"]
  chosen = [
    name
    for name in ("tensorflow", "tensorflow-cpu")
    for requirement in requirements[name]
    if requirement.marker.evaluate(environment)
  ]
  assert chosen == [expected]
