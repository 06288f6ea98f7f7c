"""NaN and infinity planted in parameters, generator and chains."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import (
  data,
  networks,
  objectives,
  pixels,
  restore,
  sharding,
  train,
)
from hatebm_jax.run import checkpoint

NAN, INFINITY = float("nan"), float("inf")


def note(path):
  return json.loads((path / "nonfinite.json").read_text())


def plant(config, path, value):
  """Saves a next checkpoint with a value in the hat's parameters."""
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  with checkpoint.Checkpoints(path) as saved:
    state, step = restore.restore_or_init(config, objective, mesh, saved)
    params = state.hat.params
    kernel = params["head"]["kernel"].at[0, 0].set(value)
    params = {**params, "head": {**params["head"], "kernel": kernel}}
    hat = state.hat._replace(params=params)
    saved.save(step + 1, state._replace(hat=hat), {})
  return step + 1


@pytest.mark.slow
@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_parameters(tmp_path, value):
  config = tiny.config()
  assert train.train(config, tmp_path) is None
  planted = plant(config, tmp_path, value)
  config = tiny.config(train__num_steps=8)
  with pytest.raises(
    train.TrainingError, match=f"at training step {planted + 1}"
  ) as error:
    train.train(config, tmp_path)
  message = str(error.value)
  assert " is nan " in message or " is inf " in message
  assert str(tmp_path / "checkpoints" / str(planted)) in message
  assert str(tmp_path / "nonfinite.json") in message
  found = note(tmp_path)
  # The sixth step takes the sixth batch: counted from 0, the batch 5.
  expected = data.batch_indices(1437, 8, config.seed, 5)
  assert found["step"] == 6 and found["indices"] == expected.tolist()
  assert found["source"] == "digits train"


def test_parameters_with_rollback(tmp_path, capsys):
  config = tiny.config(train__on_divergence="rollback")
  assert train.train(config, tmp_path) is None
  planted = plant(config, tmp_path, NAN)
  config = tiny.config(
    train__on_divergence="rollback", train__num_steps=planted + 3
  )
  assert train.train(config, tmp_path) is None
  assert "Going back to training step 4" in capsys.readouterr().out
  (rollback,) = json.loads((tmp_path / "rollbacks.json").read_text())
  assert rollback["step"] == planted + 1 and rollback["to"] == 4
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  last = json.loads(lines[-1])
  assert last["step"] == planted + 3
  assert all(np.isfinite(value) for value in last.values())
  assert note(tmp_path)["step"] == planted + 1


def test_data(tmp_path, monkeypatch):
  # The readers give uint8, which cannot hold it: planted where they are scaled,
  # in the images of the second step.
  config = tiny.config()
  indices = data.batch_indices(1437, 8, config.seed, 1)
  planted = data.open_source(config.data).images(indices)
  is_planted = lambda x: (x == planted).all()
  scaled = pixels.to_float
  monkeypatch.setattr(
    pixels, "to_float", lambda x: jnp.where(is_planted(x), NAN, scaled(x))
  )
  with pytest.raises(train.TrainingError, match="training step 2"):
    train.train(config, tmp_path)
  found = note(tmp_path)
  assert found["step"] == 2 and found["indices"] == indices.tolist()
  assert not checkpoint.steps(tmp_path)


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_a_generator_that_is_given(tmp_path, value):
  weights = np.ones((4, 256), np.float32)
  weights[2, 7] = value
  generator = networks.Generator(
    apply=lambda variables, z: (z @ variables).reshape(-1, 16, 16, 1),
    latent_shape=(4,),
    variables=weights,
  )
  config = tiny.config("digits_refine")
  with pytest.raises(train.TrainingError, match="at training step 1") as error:
    train.train(config, tmp_path, generator)
  assert "checkpoint: there is none" in str(error.value)
  assert note(tmp_path)["step"] == 1
  assert not checkpoint.steps(tmp_path)


@pytest.mark.slow
def test_a_chain_that_explodes(tmp_path):
  config = tiny.config(
    langevin__step_size_y=1e6,
    langevin__num_steps=8,
    langevin__temperature=1e-8,
    train__checkpoint_every=1,
  )
  config.langevin.max_drift_y = None
  with pytest.raises(train.TrainingError, match="training step 2") as error:
    train.train(config, tmp_path)
  # In the first step all is huge, but finite.
  assert str(tmp_path / "checkpoints" / "1") in str(error.value)
  assert note(tmp_path)["step"] == 2
  with checkpoint.Checkpoints(tmp_path, read_only=True) as saved:
    assert saved.steps() == [1]


@pytest.mark.slow
def test_exploding_drift_goes_back_and_then_ends(tmp_path, capsys):
  config = tiny.config(
    train__on_divergence="rollback",
    train__max_rollbacks=1,
    divergence__patience=1,
    train__num_steps=6,
    langevin__step_size_y=50.0,
  )
  with pytest.raises(
    train.TrainingError, match=r"clip_rate_y is .* beyond config\.divergence"
  ):
    train.train(config, tmp_path)
  assert "Going back to training step 0" in capsys.readouterr().out
