"""Two real processes with two devices each against one process with four."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
# As in devices_test.py, rounding must not be amplified.
OVERRIDES = (
  "--config.langevin.temperature=1.0",
  "--config.langevin.step_size_y=0.1",
  "--config.generator.learning_rate=1e-5",
  "--config.train.num_steps=20",
  "--config.train.image_every=20",
  "--config.train.checkpoint_every=10",
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
  with np.load(path / "samples" / "00000020_raw.npz") as file:
    return [json.loads(line) for line in lines], file["images"]


def start_two(path, *flags):
  """One run of two processes with two devices each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  coordinator = f"--coordinator=127.0.0.1:{port}", "--num_processes=2"
  return [
    start(path, 2, *coordinator, f"--process_id={i}", *flags) for i in range(2)
  ]


def test_two_processes_are_one_run(tmp_path):
  finish(*start_two(tmp_path / "two"))
  finish(start(tmp_path / "one", 4))
  two, images_two = results(tmp_path / "two")
  one, images_one = results(tmp_path / "one")
  assert [line["step"] for line in two] == list(range(1, 21))
  for name in one[0].keys() - {"steps_per_second", "input_wait_fraction"}:
    np.testing.assert_allclose(
      [line[name] for line in two],
      [line[name] for line in one],
      rtol=1e-3,
      atol=1e-5,
      err_msg=name,
    )
  difference = np.abs(np.int16(images_two) - np.int16(images_one))
  assert images_two.shape == (12, 16, 16, 1) and difference.max() <= 1


def test_pmap_is_refused_in_a_run_of_several_processes(tmp_path):
  pair = start_two(tmp_path, "--config.sharding.chains=pmap")
  for process in pair:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "error: config.sharding.chains='pmap'" in output
