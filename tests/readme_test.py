"""The README says what is so: its commands, paths, table and example."""

import importlib
import importlib.util
import pathlib
import re
import shlex

import pytest
from absl import flags

from hatebm_jax import config as config_lib
from hatebm_jax import objectives, sample, sharding, train

_ROOT = pathlib.Path(__file__).parents[1]
_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
_README = (_ROOT / "README.md").read_text()


def _fenced(language):
  return re.findall(rf"^```{language}\n(.*?)^```", _README, re.M | re.S)


def _commands():
  """Every single command of the README's bash blocks, as words."""
  commands = []
  for block in _fenced("bash"):
    # The command in a quoted --command=" ... " is one too.
    block = re.sub(r'--command="(.*?)"', r"&& \1", block, flags=re.S)
    for line in re.sub(r"\\\n|&&\s*\n", lambda m: m[0][:-1], block).split("\n"):
      line = line.replace("\\", " ")
      commands += [shlex.split(part, comments=True) for part in _split(line)]
  return [command for command in commands if command]


def _split(line):
  """Splits at `&&` outside quotes."""
  return re.split(r"&&(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", line)


def _module_commands():
  return [c for c in _commands() if c[1:2] == ["-m"] and "hatebm" in c[2]]


def _load(name):
  path = _ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(f"readme_{name}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def _check_field(config, field):
  group = config
  for name in field.split("."):
    assert name in group, f"--config.{field}: no such field"
    group = group[name]


def test_the_two_commands_are_there():
  run, test = _fenced("bash")[:2]
  assert run.strip() == (
    "pip install -e . && python -m hatebm_jax.main "
    "--config=configs/digits.py --workdir=runs/digits"
  )
  assert test.strip() == "pip install -e '.[test]' && pytest"


def test_commands_are_found():
  modules = [command[2] for command in _module_commands()]
  assert modules.count("hatebm_jax.main") >= 5
  assert "hatebm_jax.convert" in modules


@pytest.mark.parametrize("command", _module_commands(), ids=" ".join)
def test_command(command):
  module, arguments = command[2], command[3:]
  spec = importlib.util.find_spec(module)
  assert spec, f"no module {module}"
  if spec.submodule_search_locations:
    assert importlib.util.find_spec(f"{module}.__main__"), module
  if module != "hatebm_jax.main":
    return
  importlib.import_module(module)
  configs = [a for a in arguments if a.startswith("--config=")]
  assert len(configs) == 1, "expected one --config=FILE"
  path = _ROOT / configs[0].partition("=")[2]
  assert path.exists(), path
  config = _load(path.stem)
  for argument in arguments:
    name, equals, value = argument.removeprefix("--").partition("=")
    assert argument.startswith("--") and equals, argument
    if name.startswith("config."):
      _check_field(config, name.removeprefix("config."))
    else:
      assert name in flags.FLAGS, f"no flag --{name}"
    if name == "mode":
      assert value in flags.FLAGS["mode"].parser.enum_values


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_override_in_the_text_is_a_field(document):
  text = (_ROOT / document).read_text()
  config = config_lib.default()
  for field in re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", text):
    _check_field(config, field)


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_links_and_pictures_exist(document):
  text = (_ROOT / document).read_text()
  anchors = {
    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
    for title in re.findall(r"^#+ (.*)$", text, re.M)
  }
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if target.startswith("#"):
      assert target[1:] in anchors, target
    elif not re.match(r"https?://", target):
      assert (_ROOT / target).exists(), f"{document} links to {target}"


def _table():
  """Rows of the table of experiments: config name -> cells."""
  rows = re.findall(
    r"^\| \[configs/(\w+)\.py\]\([^)]*\) \|(.*)\|$", _README, re.M
  )
  return {name: [c.strip() for c in cells.split("|")] for name, cells in rows}


def test_table_has_every_experiment():
  names = {path.stem for path in (_ROOT / "configs").glob("*.py")}
  assert set(_table()) == names - {"__init__"}


@pytest.mark.parametrize("name", sorted(_table()))
def test_table_agrees_with_the_config(name):
  data, size, _, fid = _table()[name]
  config = _load(name)
  assert data.startswith(f"`{config.data.source}`")
  assert int(size) == config.data.image_size
  docstring = (_ROOT / "configs" / f"{name}.py").read_text().split('"""')[1]
  published = re.search(r"FID ([\d.]+)( \+- [\d.]+)? \(cited\)", docstring)
  if published:
    assert fid == "".join(filter(None, published.groups())).replace("+-", "±")
  else:
    assert not re.match(r"\d", fid), f"where does FID {fid} come from?"


def test_library_example_runs():
  _, example = _fenced("python")
  names = {}
  exec(example, names)
  assert names["images"].shape == (8, 16, 16, 1)
  assert names["info"].energy.shape == (names["settings"].num_steps,)


def test_own_generator_example_fits(monkeypatch):
  example, _ = _fenced("python")
  made = []

  def make(config, path, generator):
    made.append(objectives.make(config, sharding.make_mesh(), generator))
    return made[-1]

  monkeypatch.setattr(train, "train", make)
  monkeypatch.setattr(sample, "restore", make)
  monkeypatch.setattr(sample, "draw", lambda restored: restored)
  exec(example, {})
  assert [objective.networks.latent_shape for objective in made] == [(32,)] * 2
