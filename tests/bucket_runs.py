"""A tiny run in a bucket, and what it leaves."""

import time

import chex
import child
import jax
import numpy as np
import orbax.checkpoint as ocp

from hatebm_jax.run import checkpoint, files, logs, npz, workdir

STEPS = 12
FLAGS = (
  "--config.train.log_every=2",
  "--config.train.image_every=4",
  "--config.train.checkpoint_every=2",
  "--config.sample.num_images=8",
  "--config.chains.num_chains=0",
)


def start(path, num_steps=STEPS, prefix=(), cache=None):
  flags = *FLAGS, f"--config.train.num_steps={num_steps}"
  return child.start(path, *flags, num_devices=1, prefix=prefix, cache=cache)


def start_until_saved(path, cache=None):
  """Starts a run and waits until it has saved two checkpoints."""
  run = start(path, cache=cache)
  child.wait_for(run, lambda: len(checkpoint.steps(path)) > 1)
  return run


def train_twice(path, proxy, failure, cache=None):
  """Trains until the server fails for good, and goes on when it answers again.

  Args:
    path: Path of the workdir.
    proxy: Open `bucket_proxy.Proxy` before the server.
    failure: What `proxy.failing` takes.
    cache: Folder of compiled programs, as in `child.start`.
  """
  run = start_until_saved(path, cache)
  with proxy.failing(failure):
    begin = time.monotonic()
    output = child.finish(run, 1)
    print(f"ended after {time.monotonic() - begin:.0f} s", flush=True)
  assert output.count("error:") == 1 and "Traceback" not in output, output
  print(output.splitlines()[-1], flush=True)
  assert "Resuming at step" in child.finish(start(path, cache=cache))


def read_state(folder):
  """Returns the arrays of a checkpoint, whatever devices it was written on."""
  checkpointer = ocp.PyTreeCheckpointer()
  tree = checkpointer.metadata(folder).item_metadata.tree
  as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
  return checkpointer.restore(folder, restore_args=jax.tree.map(as_numpy, tree))


def results(path, folder, num_steps=STEPS):
  """Returns all that a run leaves, but for times.

  Args:
    path: Path of the workdir.
    folder: Local folder for a copy of its checkpoint.
    num_steps: Number of its training steps.
  """
  path = files.as_path(path)
  item = path / "checkpoints" / str(num_steps) / "default"
  for file in files.all_files(item):
    copy = folder / str(file).removeprefix(f"{item}/")
    files.write_atomic(copy, file.read_bytes())
  state = read_state(folder)
  lines = [
    {name: x for name, x in line.items() if name not in logs.TIMES}
    for line in workdir.read_metrics(path)
  ]
  images = npz.all_arrays(path / "samples" / f"{num_steps:08d}_raw.npz")
  return state, lines, images, workdir.read_evaluation(path)["sets"]


def assert_same_results(path, other, tmp_path, num_steps=STEPS):
  """Checks that two runs have left the same, to the bit."""
  found = results(path, tmp_path / "found", num_steps)
  expected = results(other, tmp_path / "expected", num_steps)
  assert len(jax.tree.leaves(found[0])) > 50
  chex.assert_trees_all_equal(found[0], expected[0])
  np.testing.assert_equal(found[1:], expected[1:])
  return found
