"""The documents say what is so: commands, fields, links, tables, examples."""

import importlib
import importlib.util
import pathlib
import re
import shlex
import sys

import chex
import jax
import numpy as np
import pytest
import tiny
from absl import flags
from jax import numpy as jnp

from hatebm_jax import config as config_lib
from hatebm_jax import (
  langevin,
  metrics,
  networks,
  objectives,
  sharding,
  train,
)
from hatebm_jax.metrics import metric

_ROOT = pathlib.Path(__file__).parents[1]
_DOCUMENTS = [
  *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
  *sorted(f"docs/{path.name}" for path in (_ROOT / "docs").glob("*.md")),
]
_TEXTS = {name: (_ROOT / name).read_text() for name in _DOCUMENTS}
_README = _TEXTS["README.md"]
# docs/conf.py makes these pages, so they are not in the checkout.
_GENERATED = {"docs/reference/index.md", "docs/reference/fields.md"}
# Settings that let an example train in seconds.
_TINY = {
  "model.width": 8,
  "model.latent_size": 4,
  "train.num_steps": 2,
  "train.batch_size": 8,
  "langevin.num_steps": 2,
  "generator.bank_size": 24,
  "sample.num_images": 8,
  "sample.batch_size": 8,
  "evaluate.num_steps": 2,
  "chains.num_chains": 0,
  "metrics.num_references": 64,
}


def _fenced(language, text):
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _commands():
  """Every single command of the documents' bash blocks, as words."""
  commands = []
  for block in (b for t in _TEXTS.values() for b in _fenced("bash", t)):
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
  """Commands of modules of this repository, each once."""
  found = {}
  for words in _commands():
    if words[0] == "hatebm":
      words = ["python", "-m", "hatebm_jax.main", *words[1:]]
    if words[1:2] == ["-m"] and re.match("hatebm_jax|experiments", words[2]):
      found[" ".join(words)] = words
  return list(found.values())


def _load(name):
  path = _ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(f"readme_{name}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def _check_field(config, field):
  group = config
  for name in field.split("."):
    assert name in group, f"config.{field}: no such field"
    group = group[name]


def test_the_readme_is_short():
  assert len(_README.splitlines()) <= 200


def test_the_two_commands_are_there():
  run, test = _fenced("bash", _README)[:2]
  assert run.strip() == (
    "pip install -e . && python -m hatebm_jax.main "
    "--config=configs/digits.py --workdir=runs/digits"
  )
  assert test.strip() == "pip install -e '.[test]' && pytest"


def test_commands_are_found():
  modules = [command[2] for command in _module_commands()]
  assert modules.count("hatebm_jax.main") >= 15
  names = ("convert", "report", "aot", "benchmark")
  assert {f"hatebm_jax.{name}" for name in names} <= set(modules)


@pytest.mark.parametrize("command", _module_commands(), ids=" ".join)
def test_command(command):
  module, arguments = command[2], command[3:]
  spec = importlib.util.find_spec(module)
  assert spec, f"no module {module}"
  if spec.submodule_search_locations:
    assert importlib.util.find_spec(f"{module}.__main__"), module
  if module == "hatebm_jax.main":
    _check_main(arguments)


def _check_main(arguments):
  """Checks flags, the config and the fields of a command of main."""
  importlib.import_module("hatebm_jax.main")
  given = dict(a.removeprefix("--").split("=", 1) for a in arguments)
  assert "workdir" in given
  # Without a config, the workdir's own is used.
  name = pathlib.Path(given.pop("config", "digits")).stem
  assert (_ROOT / "configs" / f"{name}.py").exists(), name
  for flag, value in given.items():
    if flag.startswith("config."):
      _check_field(_load(name), flag.removeprefix("config."))
    else:
      assert flag in flags.FLAGS, f"no flag --{flag}"
    if flag == "mode":
      assert value in flags.FLAGS["mode"].parser.enum_values


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_field_in_the_text_exists(document):
  config = config_lib.default()
  text = re.sub(r"^```python.*?^```", "", _TEXTS[document], flags=re.M | re.S)
  fields = re.findall(
    r"(?<![\w./])(?:--)?config\.([a-z_]+(?:\.[a-z_]+)*)(?![\w(])", text
  )
  for field in set(fields) - {"json", "group.field"}:
    _check_field(config, field)


def _anchors(text):
  """Anchors of a document's headings, as code hosts and the site make them."""
  return {
    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
    for title in re.findall(r"^#+ (.*)$", text, re.M)
  }


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_links_and_pictures_exist(document):
  folder = (_ROOT / document).parent
  for target in re.findall(r"\]\(([^)\s]+)\)", _TEXTS[document]):
    if re.match(r"https?://", target):
      continue
    file, _, anchor = target.partition("#")
    path = (folder / file).resolve() if file else _ROOT / document
    if str(path.relative_to(_ROOT)) in _GENERATED:
      continue
    assert path.exists(), f"{document} links to {target}"
    if anchor:
      assert anchor in _anchors(path.read_text()), target


def test_every_page_is_in_the_index():
  text = _TEXTS["docs/index.md"]
  pages = {path.stem for path in (_ROOT / "docs").glob("*.md")} - {"index"}
  (trees,) = [
    set(re.findall(r"^\w+$", "\n".join(blocks), re.M))
    for blocks in [_fenced(r"\{toctree\}", text)]
  ]
  assert trees == pages
  assert pages <= set(re.findall(r"\]\((\w+)\.md\)", text))


def test_the_layout_names_every_module_and_room():
  text = _TEXTS["docs/layout.md"]
  for path in (_ROOT / "hatebm_jax").iterdir():
    is_room = (path / "__init__.py").exists()
    if is_room or path.suffix == ".py":
      name = f"{path.name}/" if is_room else path.name
      assert name == "__init__.py" or f"{name}`" in text, name


def _table():
  """Rows of the table of experiments: config name -> cells."""
  rows = re.findall(
    r"^\| \[configs/(\w+)\.py\]\([^)]*\) \|(.*)\|$", _README, re.M
  )
  return {name: [c.strip() for c in cells.split("|")] for name, cells in rows}


def test_table_has_every_experiment():
  names = {path.stem for path in (_ROOT / "configs").glob("*.py")}
  # One sentence names the configs with settings that are not the paper's.
  plus = {name for name in names if name.endswith("_plus")}
  assert set(_table()) == names - plus - {"__init__", "default"}
  assert {name.removesuffix("_plus") for name in plus} < set(_table())


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


def _examples():
  """Returns the documents with examples; those that train are slow."""
  documents = []
  for name, text in _TEXTS.items():
    if _fenced("python", text) and name != "CONTRIBUTING.md":
      marks = [pytest.mark.slow] if "train.train(" in text else []
      documents.append(pytest.param(name, marks=marks))
  return documents


@pytest.fixture
def tiny_runs(monkeypatch):
  """Lets `train.train` take two steps of small networks."""
  real = train.train

  def shortened(config, path, **networks):
    config.update_from_flattened_dict(_TINY)
    return real(config, path, **networks)

  monkeypatch.setattr(train, "train", shortened)


@pytest.mark.parametrize("document", _examples())
def test_examples_run(document, tmp_path, monkeypatch, tiny_runs):
  monkeypatch.chdir(tmp_path)
  names = {"__name__": "example"}
  for block in _fenced("python", _TEXTS[document]):
    needed = re.findall(r"^import (equinox)", block, re.M)
    if any(importlib.util.find_spec(name) is None for name in needed):
      continue  # It is no dependency of the tests.
    exec(block, names)
    if isinstance(names.get("hat"), networks.Hat):
      networks.check_hat(names["hat"], (16, 16, 1))
  if document == "README.md":
    assert names["images"].shape == (8, 16, 16, 1)
    assert names["info"].energy.shape == (names["settings"].num_steps,)


def _worked_examples():
  """Path -> code, of the files that CONTRIBUTING.md writes as examples."""
  blocks = _fenced("python", _TEXTS["CONTRIBUTING.md"])
  return dict(re.match(r"# (\S+)\n(.*)", b, re.S).groups() for b in blocks)


def _tiny(**fields):
  config = _load("digits")
  config.update_from_flattened_dict(_TINY | fields)
  return config


@pytest.fixture
def worked_examples(tmp_path, monkeypatch):
  """Puts the modules of the examples beside those of the package."""
  for name, code in _worked_examples().items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
  places = ["", "/models", "/objectives", "/metrics", "/data"]
  for place in places:
    package = importlib.import_module(f"hatebm_jax{place}".replace("/", "."))
    folder = str(tmp_path / f"hatebm_jax{place}")
    monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
  before = set(sys.modules)
  yield tmp_path
  for name in set(sys.modules) - before:
    if str(getattr(sys.modules[name], "__file__", "")).startswith(
      str(tmp_path)
    ):
      del sys.modules[name]


def test_the_example_of_a_hat(worked_examples):
  config = _tiny(**{"hat.kind": "small_hat"})
  objective = objectives.make(config, sharding.make_mesh())
  state = jax.eval_shape(objective.init, jax.random.key(0))
  assert state.hat.params["Conv_0"]["kernel"].shape == (4, 4, 1, 8)


@pytest.mark.slow
def test_the_example_of_an_objective(worked_examples):
  path = worked_examples / "configs/digits_frozen.py"
  names = {}
  exec(path.read_text(), names)
  config = names["get_config"]()
  config.update_from_flattened_dict(_TINY)
  images = np.zeros((8, 16, 16, 1), np.uint8)
  _, before, after, _, shown = tiny.take_step(config, 8, images)
  chex.assert_trees_all_equal(before.generator, after.generator)
  assert np.any(before.hat.params["head"]["kernel"] != 0)
  assert shown["hat"].shape == images.shape


def test_the_example_of_a_sampler(worked_examples):
  annealed = importlib.import_module("hatebm_jax.annealed")
  state = langevin.State(jnp.zeros((2, 3)), jnp.ones((2, 4, 4, 1)))
  settings = langevin.Settings(num_steps=30, step_size_y=0.1)
  arguments = (
    jax.random.key(0),
    lambda x: jnp.square(x).sum((1, 2, 3)),
    lambda z: jnp.zeros((len(z), 4, 4, 1)),
    state,
    settings,
  )
  cold, info = langevin.sample(*arguments)
  hot, info_hot = annealed.sample(*arguments)
  assert jax.tree.map(jnp.shape, info) == jax.tree.map(jnp.shape, info_hot)
  assert np.any(cold.y != hot.y)
  # From step 20 on both are at the same temperature.
  later = annealed.sample(*arguments, first_step=20)
  chex.assert_trees_all_close(later, langevin.sample(*arguments, first_step=20))


def test_the_example_of_a_metric(worked_examples):
  assert metrics.all_figures()["brightness"].text(127.04) == "127.0"
  images = np.full((2, 16, 16, 1), 7, np.uint8)
  found = {}
  for module in metrics.all_metrics():
    if module.__name__.endswith("brightness"):
      found = module.figures(metric.Sample(images, None, None, None), None)
  assert found == {"brightness": 7.0}


def test_the_example_of_a_data_source(worked_examples, tmp_path):
  array = importlib.import_module("hatebm_jax.data.array")
  images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
  np.save(tmp_path / "images.npy", images)
  config = config_lib.default().data
  config.image_size = 16
  source = array.open_array(tmp_path / "images.npy", config, "train")
  np.testing.assert_array_equal(source.images([2, 0]), images[[2, 0]])
