"""--out: samples and figures go elsewhere, and the workdir stays as it is."""

import json
import pathlib
import shutil

import child
import numpy as np
import pytest

from hatebm_jax.run import files

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "workdir_5675db3"


@pytest.fixture(name="path")
def copy_of_the_fixture(tmp_path):
  return shutil.copytree(FIXTURE, tmp_path / "run")


def run(path, *given, status=0):
  """Runs the command on one device; returns what it printed."""
  return child.finish(child.start(path, *given, num_devices=1), status)


def content(path):
  return {str(file): files.sha256(file) for file in files.all_files(path)}


@pytest.mark.slow
def test_samples_and_figures_are_written_elsewhere(path, tmp_path):
  before, out = content(path), tmp_path / "out"
  output = run(
    path, "--mode=sample", f"--out={out}", "--config.sample.png=True"
  )
  assert str(out / "samples" / "00000004_raw.npz") in output
  with np.load(out / "samples" / "00000004_raw.npz") as file:
    assert len(file["images"]) == 12
  assert len(list((out / "samples" / "00000004_raw").iterdir())) == 12
  # The images of another tool need no run, and the workdir need not exist.
  output = run(
    tmp_path / "none",
    "--mode=evaluate",
    f"--out={out}",
    f"--config.metrics.samples={out / 'samples' / '00000004_raw'}",
  )
  figures = json.loads((out / "evaluation.json").read_text())
  assert figures["sets"]["samples"]["num_images"] == 12
  assert content(path) == before and not (tmp_path / "none").exists()


def test_training_has_no_other_place(path, tmp_path):
  output = run(path, f"--out={tmp_path / 'out'}", status=1)
  assert "error: --out=" in output and "leave --out away" in output
