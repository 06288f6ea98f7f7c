"""Two real processes with two devices each against one process with four."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
# At T = 1 the chain is no amplifier of rounding.
OVERRIDES = (
  "--config.langevin.temperature=1.0",
  "--config.langevin.step_size_y=0.1",
  "--config.train.num_steps=2",
)


def start(path, num_devices, *flags):
  return subprocess.Popen(
    [
      sys.executable,
      "-m",
      "hatebm_jax.main",
      "--config=tests/tiny_config.py",
      f"--workdir={path}",
      *OVERRIDES,
      *flags,
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={
      **os.environ,
      "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
      "XLA_FLAGS": os.environ["XLA_FLAGS"]
      + f" --xla_force_host_platform_device_count={num_devices}",
    },
  )


def finish(*processes):
  for process in processes:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def results(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  with np.load(path / "samples" / "00000002_raw.npz") as file:
    return [json.loads(line) for line in lines], file["images"]


def test_two_processes_are_one_run(tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  pair = [
    start(
      tmp_path / "two",
      2,
      f"--coordinator=127.0.0.1:{port}",
      "--num_processes=2",
      f"--process_id={i}",
    )
    for i in range(2)
  ]
  finish(*pair)
  finish(start(tmp_path / "one", 4))
  two, images_two = results(tmp_path / "two")
  one, images_one = results(tmp_path / "one")
  assert [line["step"] for line in two] == [line["step"] for line in one]
  for name in ("energy_data", "energy_sample", "drift_norm_y", "saturation"):
    np.testing.assert_allclose(two[0][name], one[0][name], rtol=1e-4)
  # The first update of Adam turns gradients of rounding into full steps.
  difference = np.abs(np.int16(images_two) - np.int16(images_one))
  assert images_two.shape == (12, 16, 16, 1) and difference.max() <= 2
