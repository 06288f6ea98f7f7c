"""Checkpoints in a bucket as one of two processes, with two devices each.

python tests/bucket_hosts.py PORT PROCESS_ID WORKDIR
"""

import sys
import traceback

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from hatebm_jax import sharding
from hatebm_jax.run import buckets, checkpoint, distributed, files


def arrays(value):
  """Returns a state as NumPy arrays."""
  return {
    "split": np.arange(24.0, dtype=np.float32).reshape(8, 3) + value,
    "same": {"a": np.full((5,), value, np.float32), "b": np.int32(value)},
  }


def shardings():
  """Returns where the arrays lie: one is split over all devices."""
  return sharding.named(
    sharding.make_mesh(),
    {"split": P(sharding.AXIS), "same": {"a": P(), "b": P()}},
  )


def state(value):
  """Returns a state on all devices of the run."""
  place = lambda x, to: jax.make_array_from_callback(
    x.shape, to, lambda index: x[index]
  )
  return jax.tree.map(place, arrays(value), shardings())


def assert_restored(saved, step, value):
  """Checks what this process holds of a checkpoint."""
  abstract = jax.tree.map(
    lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to),
    arrays(0),
    shardings(),
  )
  found = jax.tree.leaves(saved.restore(step, abstract))
  for leaf, expected in zip(found, jax.tree.leaves(arrays(value)), strict=True):
    for shard in leaf.addressable_shards:
      np.testing.assert_array_equal(shard.data, expected[shard.index])


def save_and_go_back(path):
  """Leaves the checkpoints 4 and 6; the first 6 was taken back."""
  with checkpoint.Checkpoints(path, keep=2) as saved:
    assert saved.newest_whole() is None
    for step in (2, 4, 6):
      saved.save(step, state(step), {"n": step})
  assert checkpoint.steps(path) == [4, 6]
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    assert saved.newest_whole() == 6 and saved.note(6) == {"n": 6}
    assert_restored(saved, 6, 6)
    saved.check(4)
    assert_restored(saved, 4, 4)
  with checkpoint.Checkpoints(path, keep=2) as saved:
    assert saved.newest_whole() == 6
    assert saved.go_back(5) == 4 and saved.newest_whole() == 4
    assert_restored(saved, 4, 4)
    saved.save(6, state(60), {})
  assert checkpoint.steps(path) == [4, 6]


def fall_back(path):
  """Damages the newest checkpoint; all go back to the one before it."""
  if jax.process_index() == 0:
    item = path / "checkpoints" / "6" / "default"
    name = next(x for x in buckets.objects(item) if x.startswith("d/"))
    (item / name).write_bytes(b"something else")
  sharding.any_process(False)
  with checkpoint.Checkpoints(path, keep=2) as saved:
    assert saved.newest_whole() == 4
    assert_restored(saved, 4, 4)
    saved.save(8, state(8), {})
  aside = files.entries(path / "broken_checkpoints")
  assert [x.name for x in aside] == ["6.0"]


def fail(path):
  """Fails to upload, because the bucket is gone; all processes say so."""
  with checkpoint.Checkpoints(path) as saved:
    saved.save(10, state(10), {})
    saved.save(12, state(12), {})
    if jax.process_index() == 0:
      saved._manager.wait_until_finished()
      path.parent.rmtree()
      buckets.filesystem(path).rmdir(path.parent.name)
    saved.save(14, state(14), {})
    saved.save(16, state(16), {})


def main(port, index, url):
  """Takes all steps; prints the error of the last one."""
  jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
  path = files.as_path(url)
  save_and_go_back(path)
  fall_back(path)
  try:
    fail(path)
  except checkpoint.CheckpointError as error:
    print(f"error: {error}", flush=True)


if __name__ == "__main__":
  try:
    main(*sys.argv[1:])
  except BaseException:
    traceback.print_exc()
    distributed.leave_now(1)
