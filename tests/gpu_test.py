"""A short check of everything on a GPU.

  pytest -o addopts=--import-mode=importlib tests/gpu_test.py

It needs no pytest-xdist and takes a few minutes. Without a GPU it is skipped.
All work is done in other processes, because the tests themselves run on
virtual CPU devices.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PLATFORM = os.environ.get("HATEBM_TEST_PLATFORM", "cuda")
pytestmark = pytest.mark.gpu


def python(*arguments):
  """Runs Python as a user does, on the GPU, and returns what it printed."""
  environment = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    # JAX then fails where there is no GPU, and does not take the CPU.
    "JAX_PLATFORMS": f"{PLATFORM},cpu",
  }
  environment.pop("XLA_FLAGS", None)
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


@functools.cache
def problem():
  """Returns why there is no GPU for the tests, or an empty text."""
  found = python("-c", f"import jax; jax.devices({PLATFORM!r})")
  return found.stderr.strip().splitlines()[-1] if found.returncode else ""


@pytest.fixture(autouse=True)
def needs_a_gpu():
  if problem():
    pytest.skip(f"there is no GPU: {problem()}")


def finish(*arguments):
  result = python(*arguments)
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


def test_values_and_gradients_are_those_of_the_cpu():
  output = finish("tests/gpu_values.py", PLATFORM)
  for form, errors in json.loads(output.splitlines()[-1]).items():
    for name, error in errors.items():
      assert error < 1e-4, (form, name, error)


def test_a_run_from_training_to_evaluation(tmp_path):
  path = tmp_path / "run"
  run = functools.partial(
    finish, "-m", "hatebm_jax.main", "--config=digits", f"--workdir={path}"
  )
  settings = (
    "--config.train.log_every=5",
    "--config.train.image_every=10",
    "--config.train.checkpoint_every=10",
    "--config.sample.num_images=64",
    "--config.sample.batch_size=64",
    "--config.evaluate.num_steps=10",
  )
  run(*settings, "--config.train.num_steps=10")
  run(*settings, "--config.train.num_steps=20")
  lines = (path / "metrics.jsonl").read_text().splitlines()
  logs = [json.loads(line) for line in lines]
  assert [log["step"] for log in logs if "hat_loss" in log] == [5, 10, 15, 20]
  assert all(np.isfinite(log["hat_loss"]) for log in logs if "hat_loss" in log)
  run(*settings, "--mode=sample")
  samples = list((path / "samples").glob("*.npz"))
  assert samples
  for name in samples:
    with np.load(name) as file:
      assert file["images"].shape == (64, 16, 16, 1)
      assert file["images"].std() > 0
  run(*settings, "--mode=evaluate")
  assert json.loads((path / "evaluation.json").read_text())
