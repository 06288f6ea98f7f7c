"""Checks that a training run does not depend on the number of devices."""

import chex
import jax
import numpy as np
import pytest
import tiny

from hatebm_jax import compile as compile_lib
from hatebm_jax import data, objectives, sharding, train
from hatebm_jax import rng as rng_lib
from hatebm_jax.run import checkpoint


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
    state, first = train.restore_or_init(settings, objective, mesh, saved)
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


@pytest.mark.parametrize("num_devices", [2, 8])
def test_losses_of_20_steps_do_not_depend_on_devices(
  num_devices, on_one_device, tmp_path
):
  _, metrics = run(config(), num_devices, 20, tmp_path)
  _, expected = on_one_device
  assert_same_metrics(metrics, expected)


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
    state, step = train.restore_or_init(config(), objective, mesh, saved)
  assert step == 2
  chex.assert_trees_all_equal(jax.device_get(state), expected)
  assert len(state.bank.x.addressable_shards) == num_devices


@pytest.mark.slow
def test_the_restored_run_goes_on_alike(checkpoint_from_four):
  path, _ = checkpoint_from_four
  _, expected = run(config(), 4, 3, path)
  _, metrics = run(config(), 1, 3, path)
  assert_same_metrics(metrics, expected)
