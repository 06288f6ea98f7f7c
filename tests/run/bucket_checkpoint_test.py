"""Checkpoints in a bucket, on real servers on this machine."""

import jax
import numpy as np
import pytest

from hatebm_jax.run import buckets, checkpoint, files


def state(value):
  return {
    "a": jax.numpy.arange(12.0).reshape(3, 4) + value,
    "b": {"c": jax.numpy.full((5,), value)},
  }


ABSTRACT = jax.eval_shape(lambda: state(0))


def restored(saved, step):
  return saved.restore(step, ABSTRACT)


def assert_same(found, value):
  jax.tree.map(np.testing.assert_array_equal, found, state(value))


@pytest.fixture
def path(bucket_url):
  """Returns the path of a workdir with checkpoints of the steps 4 and 6."""
  path = files.as_path(bucket_url)
  with checkpoint.Checkpoints(path, keep=2) as saved:
    assert saved.newest_whole() is None and saved.latest_step() is None
    for step in (2, 4, 6):
      saved.save(step, state(step), {"n": step})
  return path


def test_what_is_saved_is_restored(path):
  assert checkpoint.steps(path) == [4, 6]
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    assert saved.newest_whole() == saved.latest_step() == 6
    assert saved.note(6) == {"n": 6}
    assert saved.shapes(6) == {"a": (3, 4), "b/c": (5,)}
    assert_same(restored(saved, 6), 6)
    saved.check(4)
    assert_same(restored(saved, 4), 4)
  assert checkpoint.steps(path) == [4, 6]


def test_old_ones_that_are_asked_for_are_kept(bucket_url):
  path = files.as_path(bucket_url)
  with checkpoint.Checkpoints(path, keep=1, keep_every=4) as saved:
    for step in (2, 4, 6, 8, 10):
      saved.save(step, state(step), {})
  assert checkpoint.steps(path) == [4, 8, 10]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_broken_one_is_set_aside(path, capfd, damage):
  item = path / "checkpoints" / "6" / "default"
  name = next(name for name in buckets.objects(item) if name.startswith("d/"))
  (item / name).unlink()
  if damage == "changed":
    (item / name).write_bytes(b"something else")
  with checkpoint.Checkpoints(path, keep=2) as saved:
    assert saved.newest_whole() == 4
    assert_same(restored(saved, 4), 4)
    saved.save(6, state(60), {})
  assert f"default/{name} is " in capfd.readouterr().err
  assert checkpoint.steps(path) == [4, 6]
  aside = files.entries(path / "broken_checkpoints")
  assert [x.name for x in aside] == ["6.0"]
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    saved.check(6)
    assert_same(restored(saved, 6), 60)


def test_one_without_the_marker_was_never_written(path):
  half = path / "checkpoints" / "8" / "default" / "half"
  half.write_bytes(b"half")
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    assert saved.newest_whole() == 6
  assert half.exists()
  with checkpoint.Checkpoints(path) as saved:
    assert saved.newest_whole() == 6
    saved.save(8, state(8), {})
  assert not half.exists() and checkpoint.steps(path) == [4, 6, 8]


def test_going_back_deletes_the_later_ones(path):
  with checkpoint.Checkpoints(path) as saved:
    assert saved.go_back(5) == 4 and saved.newest_whole() == 4
    assert_same(restored(saved, 4), 4)
    saved.save(6, state(60), {})
  with checkpoint.Checkpoints(path) as saved:
    assert saved.newest_whole() == 6
    assert_same(restored(saved, 6), 60)
