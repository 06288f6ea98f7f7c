"""The Colab notebooks: well-formed, true to the configs, and they run.

With HATEBM_COLAB=1 this environment stands for a runtime of Colab: each
notebook installs the package with its own cell, from the checkout's last
commit.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import child
import local_downloads
import nbclient
import nbformat
import numpy as np
import pytest

from hatebm_jax import config as config_lib
from hatebm_jax.run import files

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / "experiments" / "colab"
_ON_COLAB = os.environ.get("HATEBM_COLAB") == "1"
_NAMES = ("quickstart", "cifar10_synthesis", "retrofit_and_refine", "ood")


def _read(name):
  return nbformat.read(_FOLDER / f"{name}.ipynb", as_version=4)


def _code(name):
  cells = _read(name).cells
  return {cell.id: cell.source for cell in cells if cell.cell_type == "code"}


def _check_field(field):
  group = config_lib.default()
  for name in field.split("."):
    assert name in group, f"config.{field}: no such field"
    group = group[name]


def _fields(tree):
  """Yields `train.num_steps` of every `config.train.num_steps` in code."""
  for node in ast.walk(tree):
    names = []
    while isinstance(node, ast.Attribute):
      names.append(node.attr)
      node = node.value
    if names and isinstance(node, ast.Name) and node.id == "config":
      yield ".".join(reversed(names))


def test_every_notebook_is_tested_and_in_the_readme():
  assert {path.stem for path in _FOLDER.glob("*.ipynb")} == set(_NAMES)
  readme = (_FOLDER / "README.md").read_text()
  assert set(re.findall(r"\]\((\w+)\.ipynb\)", readme)) == set(_NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_notebook_is_well_formed_and_stores_no_outputs(name):
  notebook = _read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  for cell in notebook.cells:
    if cell.cell_type == "code":
      assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("name", _NAMES)
def test_notebook_names_what_exists(name):
  text = (_FOLDER / f"{name}.ipynb").read_text()
  for config in re.findall(r"configs/([a-z]\w*)\.py", text):
    assert (_ROOT / "configs" / f"{config}.py").exists(), config
  for field in re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", text):
    _check_field(field)
  fields = {
    f for code in _code(name).values() for f in _fields(ast.parse(code))
  }
  assert "train.num_steps" in fields
  for field in fields:
    _check_field(field)
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    assert (_FOLDER / target).exists(), target


def test_the_notebooks_install_alike():
  (install,) = {_code(name)["install"] for name in _NAMES}
  assert "--no-deps" in install
  for name in _NAMES:
    cells = list(_code(name))
    assert cells[:3] == ["settings", "install", "device"]
    assert 'REPOSITORY = "' in _code(name)["settings"]
    assert "jax.devices()" in _code(name)["device"]


def _execute(name, path, **environment):
  """Runs a notebook in a kernel of its own; returns its outputs by cell."""
  notebook = _read(name)
  if _ON_COLAB:
    pip = (sys.executable, "-m", "pip", "uninstall", "-y", "hatebm_jax")
    subprocess.run(pip, check=True)
    (cell,) = [cell for cell in notebook.cells if cell.id == "settings"]
    old, new = 'REPOSITORY = "REPOSITORY"', f"REPOSITORY = {str(_ROOT)!r}"
    assert old in cell.source
    cell.source = cell.source.replace(old, new)
  client = nbclient.NotebookClient(
    notebook, timeout=900, resources={"metadata": {"path": str(path)}}
  )
  # One device, as most people have; little is optimised, as in all tests.
  flags = re.sub(r"\S*device_count=\d+", "", os.environ["XLA_FLAGS"])
  client.execute(
    env={
      **os.environ,
      "PYTHONPATH": "" if _ON_COLAB else str(_ROOT),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": flags,
      "HATEBM_STEPS": "2",
      **environment,
    }
  )
  cells = notebook.cells
  return {cell.id: cell.outputs for cell in cells if cell.cell_type == "code"}


def _printed(outputs):
  return "".join(o.text for o in outputs if o.get("name") == "stdout")


def _pictures(outputs):
  return [
    o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})
  ]


def _markdown(outputs):
  (text,) = (o.data["text/markdown"] for o in outputs if "data" in o)
  return text


@pytest.mark.slow
def test_quickstart_runs(tmp_path):
  outputs = _execute("quickstart", tmp_path)
  run = tmp_path / "runs" / "digits"
  assert "CpuDevice" in _printed(outputs["device"])
  assert "2 steps of 8 images, width 8" in _printed(outputs["device"])
  assert len(_pictures(outputs["curves"])) == 1
  assert "00000002_averaged_grid.png" in _printed(outputs["show"])
  assert len(_pictures(outputs["show"])) == 3
  evaluation = json.loads((run / "evaluation.json").read_text())
  distance = evaluation["sets"]["hat"]["frechet_distance"]["mean"]
  printed = _printed(outputs["evaluate"])
  assert "FD-digits" in printed and f"{distance:.1f}" in printed
  assert evaluation["protocol"]["checkpoint_step"] == 2
  assert (run / "report.html").stat().st_size > 10_000
  assert re.search(r"noise: +-?\d", _printed(outputs["energy"]))


@pytest.mark.slow
def test_retrofit_and_refine_runs(tmp_path):
  outputs = _execute("retrofit_and_refine", tmp_path)
  for name in ("refine", "retrofit"):
    assert len(_pictures(outputs[name])) == 3
    table = _markdown(outputs[f"{name}-table"])
    assert re.search(r"\| Hat EBM \| measured here \|.* FD-digits \d", table)


@pytest.mark.slow
def test_ood_runs(tmp_path):
  outputs = _execute("ood", tmp_path)
  assert len(list((tmp_path / "photographs").iterdir())) == 800
  assert len(_pictures(outputs["histogram"])) == 1
  table = _markdown(outputs["table"])
  assert re.search(r"\| digits: energy \| measured here \|.* AUROC \d", table)


def _check_cifar10_synthesis(outputs):
  assert len(_pictures(outputs["show"])) == 3
  table = _markdown(outputs["table"])
  assert re.search(r"\| Hat EBM \| measured here \| FD-ResNet10 \d", table)
  assert "**Not comparable with the cited figures**" in table


@pytest.mark.slow
def test_cifar10_synthesis_runs_on_a_folder(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
  for i, image in enumerate(noise):
    files.write_png(tmp_path / "data" / f"{i}.png", image)
  data = f"folder:{tmp_path / 'data'}"
  outputs = _execute("cifar10_synthesis", tmp_path, HATEBM_DATA=data)
  _check_cifar10_synthesis(outputs)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
  """Returns a working folder whose downloads of data sets are small files.

  Without TensorFlow the first data cell installs it into this folder, from the
  network. The suite downloads nothing, so only a lane of Colab does that.
  """
  if not _ON_COLAB:
    pytest.importorskip("tensorflow")
  folder = tmp_path_factory.mktemp("downloads")
  local_downloads.write(folder / "tfds")
  return folder


@pytest.mark.slow
def test_cifar10_synthesis_runs_on_cifar10(downloads):
  outputs = _execute(
    "cifar10_synthesis", downloads, TFDS_DATA_DIR=str(downloads / "tfds")
  )
  _check_cifar10_synthesis(outputs)


_OPEN = """
from hatebm_jax import data
for source in {sources}:
  config.data.source = source
  for split in ("train", "test"):
    found = data.open_source(config.data, split)
    print(source, split, found.images([0, found.num_images - 1]).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "cell", "sets"),
  [
    ("cifar10_synthesis", "data", ["cifar10"]),
    ("ood", "data", ["cifar10", "svhn_cropped", "cifar100"]),
    ("retrofit_and_refine", "run", ["cifar10"]),
  ],
)
def test_data_cells_prepare_data_sets(name, cell, sets, downloads, monkeypatch):
  monkeypatch.chdir(downloads)
  monkeypatch.setenv("TFDS_DATA_DIR", str(downloads / "tfds"))
  sources = [f"tfds:{x}" for x in sets]
  code = [
    _code(name)["settings"],
    "from hatebm_jax.configs import cifar10",
    "config, NAME = cifar10.get_config(), 'cifar10'",
    _code(name)[cell],
    _OPEN.format(sources=sources),
  ]
  printed = child.python("\n".join(code))
  for source in sources:
    for split in ("train", "test"):
      assert f"{source} {split} (2, 32, 32, 3)" in printed
