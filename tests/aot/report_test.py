"""Compiles for TPU slices on a host without a TPU."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import needs
import pytest
import tiny

from hatebm_jax import data, errors, sharding
from hatebm_jax.aot import report, topology

ROOT = pathlib.Path(__file__).parents[2]


def run(config, topology, *overrides):
  # conftest.py sets these for CPUs, and the TPU compiler would obey them too.
  unwanted = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
  environment = {k: v for k, v in os.environ.items() if k not in unwanted}
  environment["PYTHONPATH"] = str(ROOT / "tests")
  return subprocess.run(
    [
      sys.executable,
      "-m",
      "hatebm_jax.aot",
      f"--config={config}",
      f"--topology={topology}",
      *overrides,
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


def test_a_caller_keeps_its_config():
  config = tiny.config("digits_sngan", generator__kind="decoder")
  # It ends before anything is compiled.
  with pytest.raises(errors.ConfigError, match=r"generator\.kind='decoder'"):
    report.compile_step(config, sharding.make_mesh(jax.devices()[:1]))
  assert config.model.conv_form == "auto"


@needs.libtpu
def test_tiny_step_for_four_chips(tmp_path):
  hlo_file = tmp_path / "step.txt"
  # Fewer than 8 images a chip would be repeated to 8.
  batch = "--config.train.batch_size=32", "--config.generator.bank_size=32"
  options = f"--hlo={hlo_file}", *batch
  result = run("tests/tiny_config.py", "v5e:2x2", *options)
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  assert found["chips"] == 4
  assert found["images_per_chip"] == 8
  assert found["trip_counts"] == [[tiny.config().langevin.num_steps]]
  assert found["collectives_in_loops"]["count"] == 0
  # The gradients of both networks are reduced; small all-reduces are joined.
  assert 1 <= found["collectives_per_step"]["count"] <= 4
  # The form for TPUs multiplies more, to copy less: 4x4 taps in place of 3x3 in
  # pooled layers, and 3x3 at the large size in up convolutions.
  assert 16 / 9 < found["flops_over_by_hand"] < 4
  assert found["flops_loops_once"] < found["flops_per_chip_per_step"]
  assert found["flops_loops_once"] <= found["flops_loops_once_by_xla"]
  assert found["fits"] is True
  assert found["bound"] in ("flops", "bytes")
  assert "Nothing here is measured" in found["note"]
  estimate = found["compiler_estimate"]
  steps = tiny.config().langevin.num_steps
  inside, outside = estimate["langevin_step"], estimate["outside_the_chain"]
  total = steps * inside["cycles"] + outside["cycles"]
  assert total == pytest.approx(estimate["cycles_per_step"], rel=1e-3)
  assert estimate["seconds_per_step"] == estimate["cycles_per_step"] / 1.5e9
  # Such small networks are all launches.
  assert inside["of_which_launch"] > 0.5 * inside["cycles"]
  sources = {row["source"] for row in estimate["most_expensive"]}
  assert any(source.startswith("hatebm_jax/") for source in sources)
  assert "estimated_cycles" in hlo_file.read_text()


@needs.libtpu
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v4:2x2x4", "v5e:4x4"])
def test_imagenet128_at_the_published_batch(topology):
  result = run("configs/imagenet128.py", topology)
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  assert found["chips"] == 16
  assert found["batch_size"] == 128
  assert found["fits"] is True
  assert found["collectives_in_loops"]["count"] == 0
  assert found["flops_over_by_hand"] == pytest.approx(1.544, abs=0.005)
  assert found["flops_loops_once"] == pytest.approx(
    found["flops_loops_once_by_xla"], rel=0.05
  )


@needs.libtpu
def test_unknown_slice_ends_with_one_clear_error():
  result = run("tests/tiny_config.py", "v5e:3x3")
  assert result.returncode == 1
  assert result.stdout == ""
  (line,) = [x for x in result.stderr.splitlines() if x.startswith("error:")]
  assert "v5e:3x3" in line
  assert "v4:2x2x4" in line
  assert "Traceback" not in result.stderr


def test_unknown_generation():
  with pytest.raises(topology.TopologyError, match=r"v1:2x2.*v4.*v4:2x2x4"):
    report.make(tiny.config(), "v1:2x2")


def test_missing_libtpu(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(
    topology.TopologyError, match=r"pip install -e '\.\[tpu\]'"
  ):
    report.make(tiny.config(), "v4:2x2x4")


def test_batch_that_does_not_divide(monkeypatch):
  chip = topology.CHIPS["v4"]
  monkeypatch.setattr(topology, "find", lambda _: (chip, jax.devices()))
  with pytest.raises(data.DataError, match="multiple of 8"):
    report.make(tiny.config(train__batch_size=12), "v4:2x2x2")
