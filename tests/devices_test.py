"""Checks that a training run does not depend on the number of devices."""

import chex
import jax
import numpy as np
import pytest
import tiny

from hatebm_jax import compile as compile_lib
from hatebm_jax import data, objectives, restore, sample, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.run import checkpoint, workdir


def config(**overrides):
  # At T = 1 the chain does not amplify rounding errors.
  return tiny.config(
    langevin__temperature=1.0, langevin__step_size_y=0.1, **overrides
  )


def run(settings, num_devices, num_steps, path=None, save=None):
  """Trains on some of this machine's devices.

  Args:
    settings: Config of the run.
    num_devices: Number of devices. The first ones of the machine are used.
    num_steps: Number of training steps, all in one dispatch.
    path: Workdir. Training starts from its checkpoint if it has one.
    save: Whether the state is saved there at the end.

  Returns:
    The state after the last step, and the metrics as arrays `[num_steps]`.
  """
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  objective = objectives.make(settings, mesh)
  with checkpoint.Checkpoints(path) as saved:
    state, first = restore.restore_or_init(settings, objective, mesh, saved)
    if first == 0:
      state = tiny.with_moved_bank(state)
    source = data.open_source(settings.data)
    batches = data.batches(
      source, settings.train.batch_size, settings.seed, first
    )
    images = np.stack([next(batches) for _ in range(num_steps)])
    batches.close()
    state, metrics, _ = compile_lib.compile_steps(objective, state)(
      state,
      sharding.global_batches(images, mesh),
      rng_lib.stream(jax.random.key(settings.seed), "train"),
      first + 1 + np.arange(num_steps),
    )
    if save:
      saved.save(first + num_steps, state, {})
  return state, jax.device_get(metrics)


def assert_same_metrics(got, expected):
  for name in expected:
    np.testing.assert_allclose(
      got[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name
    )


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
  return run(config(), 1, 20, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 8])
def test_losses_of_20_steps_do_not_depend_on_devices(
  num_devices, on_one_device, tmp_path
):
  _, metrics = run(config(), num_devices, 20, tmp_path)
  _, expected = on_one_device
  assert_same_metrics(metrics, expected)


@pytest.mark.slow
def test_a_split_optimizer_takes_the_same_steps(on_one_device, tmp_path):
  settings = config(sharding__split_optimizer=True)
  state, metrics = run(settings, 8, 20, tmp_path)
  assert_same_metrics(metrics, on_one_device[1])
  optimizer = state.hat.optimizer
  leaves = [leaf for leaf in jax.tree.leaves(optimizer) if leaf.ndim == 4]
  assert leaves
  for leaf in leaves:
    assert leaf.addressable_shards[0].data.size * 8 == leaf.size
  params = state.hat.params["block_1"]["conv_0"]["kernel"]
  assert params.addressable_shards[0].data.shape == params.shape


@pytest.fixture(scope="module")
def checkpoint_from_four(tmp_path_factory):
  path = tmp_path_factory.mktemp("four")
  state, _ = run(config(), 4, 2, path, save=True)
  return path, jax.device_get(state)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_a_checkpoint_from_4_devices_restores_on_others(
  num_devices, checkpoint_from_four
):
  path, expected = checkpoint_from_four
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  objective = objectives.make(config(), mesh)
  with checkpoint.Checkpoints(path) as saved:
    state, step = restore.restore_or_init(config(), objective, mesh, saved)
  assert step == 2
  chex.assert_trees_all_equal(jax.device_get(state), expected)
  assert len(state.bank.x.addressable_shards) == num_devices


@pytest.mark.slow
def test_the_restored_run_goes_on_alike(checkpoint_from_four):
  path, _ = checkpoint_from_four
  _, expected = run(config(), 4, 3, path)
  _, metrics = run(config(), 1, 3, path)
  assert_same_metrics(metrics, expected)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_split_optimizer_restores_on_other_devices(num_devices, tmp_path):
  settings = config(sharding__split_optimizer=True)
  expected, _ = run(settings, 2, 1, tmp_path, save=True)
  state, step = restored(settings, num_devices, tmp_path)
  assert step == 1
  chex.assert_trees_all_equal(*jax.device_get((state, expected)))


def restored(settings, num_devices, path):
  """Returns the state that a run is resumed with on some devices."""
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  objective = objectives.make(settings, mesh)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(settings, objective, mesh, saved)


@pytest.mark.slow
def test_the_bank_of_many_devices_is_kept_on_fewer(tmp_path):
  # Four partitions would do, but eight devices need eight.
  settings = config(generator__bank_size=20)
  state, _ = run(settings, 8, 2, tmp_path, save=True)
  assert state.bank.z.shape[:2] == (8, 3)
  for num_devices in (1, 2):
    found, step = restored(settings, num_devices, tmp_path)
    assert step == 2 + (num_devices == 2)
    assert found.bank.z.shape[:2] == (8, 3)
    if num_devices == 1:
      chex.assert_trees_all_equal(*jax.device_get((found, state)))
      _, metrics = run(settings, 1, 1, tmp_path, save=True)
      assert np.isfinite(metrics["generator_loss"]).all()
  run(settings, 2, 1, tmp_path)


@pytest.mark.slow
def test_the_bank_of_one_device_is_laid_out_anew_on_more(tmp_path, capsys):
  settings = config(generator__bank_size=20)
  state, _ = run(settings, 1, 1, tmp_path, save=True)
  assert state.bank.z.shape[:2] == (4, 5)
  capsys.readouterr()
  found, _ = restored(settings, 8, tmp_path)
  assert found.bank.z.shape[:2] == (8, 3)
  assert "Now it has 8 partitions of 3 pairs." in capsys.readouterr().out
  for part, before in zip(found.bank, state.bank, strict=True):
    assert len(part.addressable_shards) == 8
    assert part.addressable_shards[0].data.shape[0] == 1
    flat = np.reshape(part, (-1, *part.shape[2:]))
    before = np.reshape(before, (-1, *before.shape[2:]))
    np.testing.assert_array_equal(flat, np.concatenate([before, before[:4]]))
  _, metrics = run(settings, 8, 2, tmp_path, save=True)
  assert np.isfinite(metrics["generator_loss"]).all()
  # Half as many devices keep this layout.
  found, _ = restored(settings, 4, tmp_path)
  assert found.bank.z.shape[:2] == (8, 3)


@pytest.mark.slow
def test_any_number_of_devices_samples_a_run(tmp_path):
  # Neither the batch nor the bank divides over the eight devices.
  settings = config(train__batch_size=9, generator__bank_size=27)
  state, _ = run(settings, 3, 1, tmp_path, save=True)
  workdir.claim(tmp_path, settings, write=True)
  for weights, expected in (
    ("averaged", state.hat.average),
    ("raw", state.hat.params),
  ):
    settings.sample.weights = weights
    found = sample.restore(settings, tmp_path)
    assert found.mesh.size == 8 and found.step == 1
    chex.assert_trees_all_equal(*jax.device_get((found.variables[0], expected)))
  assert sample.draw(found).samples.shape == (12, 16, 16, 1)


@pytest.mark.slow
def test_only_what_is_used_is_read(tmp_path):
  run(config(), 8, 1, tmp_path, save=True)
  workdir.claim(tmp_path, config(), write=True)
  skipped = []

  def pick(model, state):
    skipped.append(state.bank.z)
    return model.variables(state, "raw")

  _, variables, step = restore.restore_part(config(), tmp_path, pick)
  assert step == 1 and skipped[-1] is checkpoint.SKIPPED
  assert all(
    leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(variables)
  )
