"""Tests the table of what a Langevin step costs on a TPU."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.skipif(
  not importlib.util.find_spec("libtpu"),
  reason="libtpu is not installed: pip install -e '.[tpu]'",
)
def test_four_images_cost_no_more_than_eight():
  # conftest.py sets these for CPUs, and the TPU compiler would obey them too.
  unwanted = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
  environment = {k: v for k, v in os.environ.items() if k not in unwanted}
  environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
  result = subprocess.run(
    [
      sys.executable,
      "experiments/tpu_compile/forms.py",
      "--config=tests/tiny_config.py",
      "--forms=dense",
      "--batches=4,8",
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  heads, _, *rows = (
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in result.stdout.splitlines()
  )
  four, eight = (dict(zip(heads, row, strict=True)) for row in rows)
  assert (four["images"], eight["images"]) == ("4", "8")
  assert four["chain"] == "synthesis, 16 px, w 8"
  number = lambda row, name: int(row[name].replace(",", ""))
  assert 0 < number(four, "cycles a step") <= number(eight, "cycles a step")
  assert number(four, "instructions") == number(eight, "instructions")
  for row in (four, eight):
    images = number(row, "images")
    per_image = number(row, "cycles a step") / images
    assert number(row, "cycles a step and image") == round(per_image)
