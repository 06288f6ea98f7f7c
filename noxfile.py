"""Runs the tests in a new environment for each Python or Colab runtime.

`nox` runs all lanes, `nox -s py313` runs one of them, and
`nox -s py313 -- -k langevin` hands arguments to pytest. A lane whose
interpreter is missing is skipped; with HATEBM_ALL_LANES=1 it fails.
"""

import json
import os
import pathlib
import shutil
import subprocess

import nox

ROOT = pathlib.Path(__file__).parent
RUNTIMES = ROOT / "tests" / "runtimes"
# What the tests of a Colab lane need and Colab does not have.
TEST_TOOLS = ("chex", "hypothesis", "pytest-xdist")
# The tests that touch what differs between versions and runtimes: JAX, Flax,
# Orbax, TensorBoard and TensorFlow Datasets. They take a minute or two.
CORE = (
  *("tests/langevin_test.py", "tests/energy_test.py", "tests/bank_test.py"),
  *("tests/optim_test.py", "tests/chains_test.py", "tests/pixels_test.py"),
  *("tests/objectives/synthesis_test.py", "tests/config_flag_test.py"),
  *("tests/run/logs_test.py", "tests/run/workdir_test.py"),
  *("tests/data/folder_test.py", "tests/data/tfds_test.py"),
  *("tests/convert/npz_test.py", "tests/run/event_file_test.py"),
  *("tests/metrics/frechet_test.py", "tests/metrics/chain_mixing_test.py"),
)
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.reuse_existing_virtualenvs = False
nox.options.error_on_missing_interpreters = (
  os.environ.get("HATEBM_ALL_LANES") == "1"
)
nox.options.sessions = ("py311", "py312", "py313", "colab_tpu", "colab_gpu")


def _interpreter(version):
  """Returns the path of a Python that starts, or its name if there is none.

  The shims that pyenv puts on the PATH fail for versions that are not active,
  so pyenv's own folder is searched too.
  """
  name = f"python{version}"
  root = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
  of_pyenv = sorted(root.glob(f"versions/{version}.*/bin/{name}"))
  for path in (shutil.which(name), *map(str, reversed(of_pyenv))):
    if path and not subprocess.run([path, "-c", ""], **_QUIET).returncode:
      return path
  return name


def _lane(version):
  """Returns the decorator of a lane's session."""
  return nox.session(python=_interpreter(version))


def _environment(session):
  """Keeps JAX on the CPU and other checkouts out of the lane."""
  session.env.update(JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="2")
  session.env.update(PYTHONPATH=None, PYTHONHOME=None)


def _newest(session):
  """Installs the newest versions that fit, and runs the whole suite.

  `nox -s py313 -- core` runs a selection only.
  """
  _environment(session)
  session.install("-e", ".[test]")
  session.run("pip", "check")
  only_core = session.posargs == ["core"]
  session.run("pytest", *(CORE if only_core else session.posargs))


def _colab(session, runtime):
  """Runs the core and the notebooks with the versions of a Colab runtime."""
  _environment(session)
  pins = str(RUNTIMES / f"colab_{runtime}.txt")
  session.install("--no-deps", "-r", pins)
  session.install("-c", pins, *TEST_TOOLS)
  before = _versions(session)
  with session.chdir(session.create_tmp()):
    # The tests need what this cell installs. The notebooks run it again.
    session.run("python", "-c", _install_cell())
  after = _versions(session)
  changed = {
    name: (version, after[name])
    for name, version in before.items()
    if version != after[name] and name != "tensorflow-metadata"
  }
  if changed:
    session.error(f"The notebooks' install cell changed versions: {changed}")
  session.run(
    *("pytest", "-n", "0", "-m", "slow or not slow"),
    "tests/experiments/colab_test.py",
    env={"HATEBM_COLAB": "1"},
  )
  session.run("pytest", *(session.posargs or CORE))


def _install_cell():
  """Returns the notebooks' install cell, with this checkout as REPOSITORY."""
  path = ROOT / "experiments" / "colab" / "quickstart.ipynb"
  cells = json.loads(path.read_text())["cells"]
  (cell,) = [cell for cell in cells if cell["id"] == "install"]
  return f"REPOSITORY = {str(ROOT)!r}\n" + "".join(cell["source"])


def _versions(session):
  """Returns the version of every package of the lane, by name."""
  listed = session.run("pip", "list", "--format=freeze", silent=True)
  return dict(x.split("==") for x in listed.split("\n") if "==" in x)


@_lane("3.11")
def py311(session):
  """Runs the whole suite with the pins of constraints.txt."""
  _environment(session)
  session.install("-c", "constraints.txt", "-e", ".[test]")
  session.run("pip", "check")
  session.run("pytest", *session.posargs)


@_lane("3.12")
def py312(session):
  """Runs the whole suite with the newest versions."""
  _newest(session)


@_lane("3.13")
def py313(session):
  """Runs the whole suite with the newest versions."""
  _newest(session)


@_lane("3.13")
def colab_tpu(session):
  """Runs the core and the notebooks as on a TPU runtime of Colab."""
  _colab(session, "tpu")


@_lane("3.13")
def colab_gpu(session):
  """Runs the core and the notebooks as on a GPU or CPU runtime of Colab."""
  _colab(session, "gpu")


@_lane("3.11")
def slow(session):
  """Runs the slow tests that tests/slow_record.jsonl does not have yet."""
  _environment(session)
  session.install("-c", "constraints.txt", "-e", ".[test]")
  session.run("python", "tests/slow.py", *session.posargs)
