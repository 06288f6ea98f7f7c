"""Runs that are killed or stopped, and end as if nothing had happened."""

import json
import os
import random
import signal
import time

import chex
import child
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing import event_accumulator

from hatebm_jax.run import logs

FLAGS = (
  "--config.train.log_every=2",
  "--config.train.image_every=10",
  "--config.train.checkpoint_every=2",
  "--config.sample.num_images=8",
  "--config.chains.num_chains=0",
)


def start(path, num_steps):
  return child.start(
    path, *FLAGS, f"--config.train.num_steps={num_steps}", num_devices=1
  )


def last_step(path):
  try:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["step"]
  except (OSError, IndexError, ValueError):
    return 0


def is_saving(path):
  return any(path.glob("checkpoints/*.orbax-checkpoint-tmp*"))


def results(path, step):
  """Returns all that a run leaves, but for times."""
  checkpointer = ocp.StandardCheckpointer()
  state = checkpointer.restore(path / "checkpoints" / str(step) / "default")
  lines = [
    {k: v for k, v in json.loads(line).items() if k not in logs.TIMES}
    for line in (path / "metrics.jsonl").read_text().splitlines()
  ]
  with np.load(path / "samples" / f"{step:08d}_raw.npz") as file:
    return state, lines, dict(file)


def assert_same(path, other, step):
  (state, lines, images), expected = results(path, step), results(other, step)
  np.testing.assert_equal(lines, expected[1])
  np.testing.assert_equal(images, expected[2])
  assert len(jax.tree.leaves(state)) > 50
  chex.assert_trees_all_equal(state, expected[0])


@pytest.mark.slow
def test_stopped_and_killed_runs_end_like_an_uninterrupted_one(tmp_path):
  whole, path = tmp_path / "whole", tmp_path / "path"
  child.finish(start(whole, 30))

  run = start(path, 30)
  child.wait_for(run, lambda: last_step(path) >= 2)
  run.send_signal(signal.SIGINT)
  output = child.finish(run, 130)
  assert "The same command resumes the run." in output

  run = start(path, 30)
  before = last_step(path)
  child.wait_for(run, lambda: last_step(path) > before)
  run.send_signal(signal.SIGTERM)
  output = child.finish(run, 143)
  assert "Resuming at step" in output and "Stopped at training" in output

  run = start(path, 30)
  before = last_step(path)
  child.wait_for(run, lambda: last_step(path) > before and is_saving(path))
  run.kill()
  child.finish(run, -signal.SIGKILL)
  # What the killed run wrote last is of no harm to TensorBoard either.
  events = event_accumulator.EventAccumulator(str(path)).Reload()
  assert "energy_gap" in events.Tags()["tensors"]

  output = child.finish(start(path, 30))
  assert "Resuming at step" in output and "warning" not in output
  assert_same(path, whole, 30)
  assert not is_saving(path) and not (path / "broken_checkpoints").exists()
  assert (path / "xla_cache").is_dir()
  assert "hat samples" in output and "held-out images" in output
  evaluation = json.loads((path / "evaluation.json").read_text())
  assert evaluation["protocol"]["checkpoint_step"] == 30


@pytest.mark.slow
def test_a_run_saves_when_its_terminal_is_closed(tmp_path):
  # Under nohup the signal of the terminal would be ignored.
  old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  run = start(tmp_path, 10_000)
  signal.signal(signal.SIGHUP, old)
  child.wait_for(run, lambda: last_step(tmp_path) >= 2)
  run.stdout.close()
  before = last_step(tmp_path)
  child.wait_for(run, lambda: last_step(tmp_path) > before + 4)
  run.send_signal(signal.SIGHUP)
  assert run.wait(timeout=60) == 129
  stopped = max(int(path.name) for path in tmp_path.glob("checkpoints/[0-9]*"))
  assert stopped >= last_step(tmp_path)
  output = child.finish(start(tmp_path, stopped + 2))
  assert f"Resuming at step {stopped}" in output


@pytest.mark.slow
def test_ctrl_c_while_samples_are_drawn(tmp_path):
  path = tmp_path / "run"
  run = start(path, 4)
  child.wait_for(run, (path / "checkpoints" / "4").exists)
  time.sleep(0.5)
  run.send_signal(signal.SIGINT)
  output = child.finish(run, 130)
  assert "Traceback" not in output
  assert output.splitlines()[-1].startswith("Interrupted. The same command")
  output = child.finish(start(path, 4))
  assert "Resuming at step 4" in output and "hat samples" in output


def kill_somewhere(run, path, generator):
  """Kills a run at its start, while it trains, or while it saves."""
  where = generator.choice(["start", "training", "saving", "saving"])
  if where == "start":
    time.sleep(generator.uniform(0, 12))
  else:
    before = last_step(path)
    condition = lambda: last_step(path) > before
    if where == "saving":
      condition = lambda: last_step(path) > before and is_saving(path)
    child.wait_for(run, condition)
    time.sleep(generator.uniform(0, 0.5 if where == "training" else 0.05))
  run.kill()
  saving = is_saving(path)
  child.finish(run, -signal.SIGKILL)
  return where, saving


@pytest.mark.slow
def test_thirty_kills(tmp_path):
  seed, kills = int(os.environ.get("KILL_SEED", 0)), 30
  num_steps = 400
  generator = random.Random(seed)
  whole, path = tmp_path / "whole", tmp_path / "path"
  child.finish(start(whole, num_steps))
  record = []
  for _ in range(kills):
    run = start(path, num_steps)
    where, saving = kill_somewhere(run, path, generator)
    record.append((where, saving, last_step(path)))
  assert last_step(path) < num_steps
  # Trained, about to write samples, and evaluating.
  written = path / "samples" / f"{num_steps:08d}_raw.npz"
  trained = path / "checkpoints" / str(num_steps)
  for sign in (trained, written.parent, written):
    if sign.exists():  # The kill before this one came a moment later.
      continue
    run = start(path, num_steps)
    child.wait_for(run, sign.exists)
    run.kill()
    child.finish(run, -signal.SIGKILL)
  assert not (path / "evaluation.json").exists()
  child.finish(start(path, num_steps))
  assert (path / "evaluation.json").exists()
  assert_same(path, whole, num_steps)
  assert not (path / "broken_checkpoints").exists()
  print(f"{kills} kills, seed {seed} (where, while saving, step): {record}")
  assert sum(saving for _, saving, _ in record) >= 5
