"""Runs the measurement of the forms of convolution on a CPU."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(out, *flags):
  environment = {**os.environ, "PYTHON": sys.executable}
  script = ROOT / "experiments/speed/gpu.sh"
  subprocess.run(
    ["bash", script, f"--out={out}", *flags], env=environment, check=True
  )
  return json.loads((out / "forms.json").read_text())


@pytest.mark.slow
def test_a_small_table(tmp_path):
  out = tmp_path / "new folder"
  result = run(
    out,
    "--sizes=32",
    "--precisions=bfloat16",
    "--forms=strided",
    "--columns=langevin_step",
    "--width=16",
    "--batch=2",
    "--steps=2",
    "--rounds=2",
  )
  (row,) = result["rows"]
  assert row["form"] == "strided" and row["width"] == 16
  step = row["langevin_step"]
  assert step["error"] is None
  assert step["seconds"] > 0
  assert step["gflop_per_second"] == step["gflop"] / step["seconds"]
  lines = (out / "forms.md").read_text().splitlines()
  assert [line for line in lines if line.startswith("| 32, 16, 2 | bfloat16")]


def test_no_group_starts_after_the_given_seconds(tmp_path):
  result = run(tmp_path, "--seconds=-1")
  assert result["rows"] == []
  assert len(result["skipped"]) == 9
