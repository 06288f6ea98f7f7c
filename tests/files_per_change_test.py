"""How many files an addition changes: real ones, in a copy of the package."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hatebm_jax import chains, langevin, networks
from hatebm_jax import rng as rng_lib

ROOT = pathlib.Path(__file__).parents[1]
CHANGES = ROOT / "tests" / "changes"

# The table of CONTRIBUTING.md: new files by the example that they hold, and
# edits of files that are there, as (file, text, text in its place).
ADDITIONS = {
  "hat as a choice of the config": (
    {"hatebm_jax/models/small_hat.py": "small_hat.py"},
    [],
  ),
  "objective": (
    {
      "hatebm_jax/objectives/contrast.py": "contrast.py",
      "configs/contrast.py": "contrast_config.py",
    },
    [],
  ),
  "sampler": (
    {"hatebm_jax/mala.py": "mala.py"},
    [
      (
        "hatebm_jax/chains.py",
        "state, info = langevin.sample(",
        "from hatebm_jax import mala\n  state, info = mala.sample(",
      )
    ],
  ),
  "metric": ({"hatebm_jax/metrics/brightness.py": "brightness.py"}, []),
  "data source": (
    {"hatebm_jax/data/stripes.py": "stripes.py"},
    [
      (
        "hatebm_jax/data/sources.py",
        '  if kind == "folder" and rest:\n',
        '  if kind == "stripes":\n'
        "    from hatebm_jax.data import stripes\n"
        "    return stripes.open_stripes(rest, config, split)\n"
        '  if kind == "folder" and rest:\n',
      )
    ],
  ),
}
NUM_FILES = {
  "hat as a choice of the config": 1,
  "objective": 2,
  "sampler": 2,
  "metric": 1,
  "data source": 2,
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
  """A copy of the package with all additions; the files of each by its name."""
  copy = tmp_path_factory.mktemp("house")
  for folder in ("hatebm_jax", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
  changed = {}
  for name, (files, edits) in ADDITIONS.items():
    for target, source in files.items():
      assert not (copy / target).exists()
      shutil.copy(CHANGES / source, copy / target)
    for target, old, new in edits:
      text = (copy / target).read_text()
      assert text.count(old) == 1, f"{target}: {old}"
      (copy / target).write_text(text.replace(old, new))
    changed[name] = {*files, *(target for target, *_ in edits)}
  return copy, changed


@pytest.fixture(scope="module")
def run(house):
  """What a run with all the additions prints, and its workdir."""
  copy, _ = house
  environment = {**os.environ, "PYTHONPATH": str(copy)}
  command = [
    *(sys.executable, "-m", "hatebm_jax.main"),
    *("--config=configs/contrast.py", "--workdir=run"),
  ]
  result = subprocess.run(
    command,
    cwd=copy,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert result.returncode == 0, result.stdout
  return result.stdout, copy / "run"


@pytest.mark.parametrize("name", ADDITIONS)
def test_an_addition_changes_as_many_files_as_the_table_says(house, name):
  _, changed = house
  assert len(changed[name]) == NUM_FILES[name]


@pytest.mark.slow
def test_a_run_with_all_of_them(run):
  output, path = run
  assert "contrast on stripes train (40 images)" in output
  assert "Parameters of the hat" in output and "Conv_0/kernel" in output
  assert "brightness" in output
  evaluation = json.loads((path / "evaluation.json").read_text())
  assert set(evaluation["sets"]) == {"hat", "generator", "held_out"}
  # Half of the rows of the stripes are white.
  held_out = evaluation["sets"]["held_out"]["brightness"]["mean"]
  assert held_out == pytest.approx(127.5, rel=0.05)
  # The rejections of MALA stand where the clip of Langevin steps stands.
  assert evaluation["chains"]["drift_norm_y"] > 0


def load_mala():
  spec = importlib.util.spec_from_file_location("mala", CHANGES / "mala.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_another_sampler_has_the_exact_law(monkeypatch):
  """MALA on H = q y^2 / 2 has the variance T / q, whatever its step size."""
  q, temperature, num = np.array([1.0, 2.0, 0.5, 4.0]), 0.8, 20_000
  model = networks.Networks(
    hat=networks.Hat(
      init=None,
      apply=lambda q, x: 0.5 * (jnp.square(x.reshape(-1, 4)) * q).sum(1),
    ),
    generator=networks.Generator(lambda _, z: jnp.zeros((len(z), 2, 2, 1)), ()),
    variables=None,
    latent_shape=(),
    image_shape=(2, 2, 1),
  )
  settings = langevin.Settings(60, step_size_y=0.7, temperature=temperature)
  rngs = rng_lib.per_index(jax.random.key(0), jnp.arange(num))
  monkeypatch.setattr(chains.langevin, "sample", load_mala().sample)
  fresh = jax.jit(
    lambda rngs: chains.run(
      model, chains.Plan(settings, 1.0, 1.0), (jnp.float32(q), ()), rngs
    )
  )(rngs)
  y = np.float64(fresh.x_sample).reshape(-1, 4)
  variance = temperature / q
  # Four standard errors, of a mean and of a Gaussian's variance.
  np.testing.assert_array_less(np.abs(y.mean(0)), 4 * np.sqrt(variance / num))
  np.testing.assert_array_less(
    np.abs(y.var(0) / variance - 1), 4 * np.sqrt(2 / num)
  )
  assert 0 < np.mean(fresh.info.clip_rate_y) < 1
