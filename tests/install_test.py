"""The wheel works from any folder: commands, configs and package data."""

import os
import pathlib
import shutil
import subprocess
import sys

import child
import pytest

TINY = (
  *("--config.model.width=8", "--config.train.batch_size=8"),
  *("--config.train.num_steps=2", "--config.langevin.num_steps=2"),
  *("--config.evaluate.num_steps=2", "--config.generator.bank_size=16"),
  *("--config.sample.num_images=8", "--config.sample.batch_size=8"),
  "--config.chains.num_chains=0",
)


def run(*command, cwd, **environment):
  """Runs a command in a folder; returns what it printed."""
  result = subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert result.returncode == 0, result.stdout
  return result.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """Returns a folder into which the wheel is installed."""
  # A build leaves files behind, which would end up in the next wheel.
  source = tmp_path_factory.mktemp("source")
  for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(child.ROOT / name, source)
  for name in ("hatebm_jax", "configs"):
    shutil.copytree(
      child.ROOT / name,
      source / name,
      ignore=shutil.ignore_patterns("__pycache__"),
    )
  folder = tmp_path_factory.mktemp("site")
  pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
  run(*pip, "wheel", "--no-deps", "--wheel-dir", source, source, cwd=source)
  (wheel,) = source.glob("*.whl")
  run(*pip, "install", "--no-deps", "--target", folder, wheel, cwd=source)
  return folder


@pytest.mark.slow
def test_a_run_with_the_installed_package(site, tmp_path):
  def hatebm(*arguments):
    return run(
      site / "bin" / "hatebm", *arguments, cwd=tmp_path, PYTHONPATH=str(site)
    )

  where = run(
    *(sys.executable, "-c", "import hatebm_jax.configs.digits as x; print(x)"),
    cwd=tmp_path,
    PYTHONPATH=str(site),
  )
  assert str(site / "hatebm_jax" / "configs" / "digits.py") in where
  output = hatebm("--config=digits", "--workdir=run", *TINY)
  assert "8 images, averaged weights of step 2, 2 Langevin steps" in output
  assert (tmp_path / "run" / "evaluation.json").exists()
  # The run's own config, with an override.
  output = hatebm(
    "--mode=sample", "--workdir=run", "--config.sample.num_images=9"
  )
  assert "9 images, averaged weights of step 2, 2 Langevin steps" in output
  # It is resumed without its config.
  output = hatebm("--workdir=run", "--config.train.num_steps=3")
  assert "8 images, averaged weights of step 3, 2 Langevin steps" in output


@pytest.mark.slow
def test_what_is_installed(site):
  installed = {
    path.relative_to(site).as_posix()
    for path in site.rglob("hatebm_jax/**/*")
    if path.suffix in (".py", ".npz", ".md")
  }
  configs = pathlib.Path("hatebm_jax/configs")
  expected = {
    path.relative_to(child.ROOT).as_posix()
    for path in (child.ROOT / "hatebm_jax").rglob("*")
    if path.suffix in (".py", ".npz", ".md")
  } | {
    (configs / path.name).as_posix()
    for path in (child.ROOT / "configs").glob("*.py")
  }
  assert installed == expected
