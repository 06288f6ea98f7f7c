"""Runs an SN-GAN and its refinement, an autoencoder and its retrofit."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import (
  chains,
  convert,
  data,
  errors,
  film_strip,
  langevin,
  networks,
  objectives,
  pixels,
  restore,
  sample,
  sharding,
  train,
)
from hatebm_jax.models import generator as generator_lib
from hatebm_jax.run import checkpoint, workdir


def state_of(config, path, generator=None):
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh, generator)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(config, objective, mesh, saved)[0]


def sngan(num_steps=2):
  return tiny.config("digits_sngan", train__num_steps=num_steps)


def autoencoder(num_steps=2):
  return tiny.config(
    "digits_autoencoder", train__num_steps=num_steps, train__test_every=2
  )


def refine(source, **overrides):
  return tiny.config(
    "digits_refine", generator__source=str(source), **overrides
  )


def retrofit(source, **overrides):
  return tiny.config(
    "digits_retrofit", generator__source=str(source), **overrides
  )


def run_once(tmp_path_factory, config):
  path = tmp_path_factory.mktemp(config.objective)
  assert train.train(config, path) is None
  return path


@pytest.fixture(scope="module")
def sngan_run(tmp_path_factory):
  return run_once(tmp_path_factory, sngan())


@pytest.fixture(scope="module")
def autoencoder_run(tmp_path_factory):
  return run_once(tmp_path_factory, autoencoder())


@pytest.fixture(scope="module")
def refine_run(tmp_path_factory, sngan_run):
  return run_once(tmp_path_factory, refine(sngan_run))


def metrics_of(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def write_samples(config, path):
  """Draws and writes samples. Returns them and the names of the files."""
  restored = sample.restore(config, path)
  drawn = sample.draw(restored)
  sample.write(restored, path, drawn)
  files = {file.name for file in (path / "samples").iterdir()}
  return drawn, {name.split("_", 2)[-1] for name in files}


def test_an_sngan_run_and_its_samples(sngan_run):
  drawn, files = write_samples(sngan(), sngan_run)
  assert files == {"raw.npz", "generator.png"}
  np.testing.assert_array_equal(drawn.samples, drawn.generated)
  assert drawn.samples.shape == (12, 16, 16, 1)
  assert set(metrics_of(sngan_run)[0]) >= {
    "discriminator_loss",
    "generator_loss",
    "logit_data",
    "logit_sample",
  }


@pytest.mark.slow
def test_an_autoencoder_run_its_test_loss_and_its_samples(autoencoder_run):
  _, files = write_samples(autoencoder(), autoencoder_run)
  assert files == {"raw.npz", "generator.png", "reconstructions.png"}
  first, second = metrics_of(autoencoder_run)
  assert "test_loss" not in first
  # Each of the 360 images counts once, though the last batch of 8 is not full.
  mesh = sharding.make_mesh()
  objective = objectives.make(autoencoder(), mesh)
  state = state_of(autoencoder(), autoencoder_run)
  source = data.open_source(autoencoder().data, "test")
  loss_fn = jax.jit(objective.test_loss)
  images = source.images(range(360))
  losses = loss_fn(state, jnp.asarray(images), jax.random.key(0))
  # The tolerance allows for other noise on the latents.
  np.testing.assert_allclose(second["test_loss"], losses.mean(), rtol=0.02)
  pairs = sample.reconstruct(
    sample.restore(autoencoder(), autoencoder_run), 500
  )
  assert pairs.shape == (2, 360, 16, 16, 1)
  np.testing.assert_array_equal(pairs[0], images)


@pytest.mark.slow
@pytest.mark.parametrize("make_config", [sngan, autoencoder])
def test_generators_resume_exactly(make_config, request, tmp_path):
  whole = request.getfixturevalue(f"{make_config.__name__}_run")
  for num_steps in (1, 2):
    assert train.train(make_config(num_steps), tmp_path) is None
  chex.assert_trees_all_equal(
    state_of(make_config(), tmp_path), state_of(make_config(), whole)
  )


def test_the_frozen_generator_is_the_sources_bit_for_bit(refine_run, sngan_run):
  source = state_of(sngan(), sngan_run)
  _, variables = objectives.make(
    sngan(), sharding.make_mesh()
  ).networks.variables(source, "raw")
  state = state_of(refine(sngan_run), refine_run)
  chex.assert_trees_all_equal(state.generator, variables)
  assert np.any(variables["batch_stats"]["norm"]["mean"])
  for before, after in zip(
    jax.tree.leaves(state.hat.average),
    jax.tree.leaves(state.hat.params),
    strict=True,
  ):
    assert np.any(before != after)


@pytest.mark.slow
def test_metrics_and_pictures_of_a_joint_run(refine_run, sngan_run):
  config, lines = refine(sngan_run), metrics_of(refine_run)
  assert [line["step"] for line in lines] == [1, 2, 3, 4]
  for line in lines:
    assert line["drift_norm_z"] > 0 and line["drift_norm_y"] > 0
    assert (
      1 < line["norm_z"] < 4
    )  # N(0, I) in 4 dimensions has a norm of about 2.
    assert line["hat_loss"] == pytest.approx(
      line["energy_gap"] / config.langevin.temperature, rel=1e-3
    )
  drawn, files = write_samples(config, refine_run)
  assert files == {
    "raw.npz",
    "generator.png",
    "grid.png",
    "paths.png",
    "split.png",
  }
  assert np.any(drawn.samples != drawn.generated)


@pytest.mark.slow
def test_paths_move_z_and_end_in_the_samples(refine_run, sngan_run):
  restored = sample.restore(refine(sngan_run), refine_run)
  drawn, paths = sample.draw(restored), sample.draw_paths(restored)
  assert np.all(np.any(paths.generated[1:] != paths.generated[:-1], (2, 3, 4)))
  frames = pixels.to_uint8(paths.generated + paths.residuals)
  assert np.abs(np.int16(frames[-1]) - np.int16(drawn.samples[:8])).max() <= 1
  first = pixels.to_uint8(paths.generated[0])
  assert np.abs(np.int16(first) - np.int16(drawn.generated[:8])).max() <= 1
  picture = film_strip.split_picture(paths)
  assert picture.shape == (8 * 33 + 1, 3 * 33 + 1, 1)


@pytest.mark.slow
def test_resume_is_exact_and_needs_no_source(refine_run, sngan_run, tmp_path):
  source = tmp_path / "source"
  shutil.copytree(sngan_run, source)
  path = tmp_path / "run"
  assert train.train(refine(source, train__num_steps=2), path) is None
  shutil.rmtree(source)
  assert train.train(refine(source), path) is None
  chex.assert_trees_all_equal(
    state_of(refine(source), path), state_of(refine(sngan_run), refine_run)
  )
  assert sample.restore(refine(source), path).step == 4


@pytest.mark.slow
def test_retrofit_of_an_autoencoder(autoencoder_run, tmp_path):
  config = retrofit(autoencoder_run, train__num_steps=2)
  state = state_of(config, tmp_path)
  source = state_of(autoencoder(), autoencoder_run)
  chex.assert_trees_all_equal(
    state.generator["params"], source.generator.params
  )
  assert train.train(config, tmp_path) is None
  assert metrics_of(tmp_path)[-1]["norm_z"] > 0


def test_settings_of_the_chains_of_a_joint_run():
  config = tiny.config("digits_retrofit", langevin__step_size_z=0.25)
  assert chains.training_plan(config).settings == langevin.Settings(
    num_steps=3,
    step_size_y=config.langevin.step_size_y,
    step_size_z=0.25,
    temperature=config.langevin.temperature,
    tau=pytest.approx(50.0),
    max_drift_y=2.5,
    update_z=True,
  )
  settings = chains.evaluation_plan(config).settings
  assert settings.update_z and settings.step_size_z == 0.25
  config.evaluate.step_size_z = 0.125
  assert chains.evaluation_plan(config).settings.step_size_z == 0.125


def converted(path, **changes):
  """Writes a generator as `python -m hatebm_jax.convert` does."""
  module = generator_lib.make(
    16, **{"width": 8, "channels": 1, "norm_epsilon": 1e-5, **changes}
  )
  variables = module.init(jax.random.key(0), jnp.zeros((1, 4)))
  convert.save_npz(path, module, variables)
  return variables


@pytest.mark.slow
def test_a_converted_file_is_a_source(tmp_path):
  variables = converted(tmp_path / "g.npz")
  config = refine(tmp_path / "g.npz")
  (loaded,) = objectives.make(config, sharding.make_mesh()).load_frozen()
  chex.assert_trees_all_equal(loaded, variables)


def train_fails(config, path):
  """Trains, expects an error and returns its message.

  The workdir must stay free for another source.
  """
  with pytest.raises(
    (
      checkpoint.CheckpointError,
      convert.ConvertError,
      errors.ConfigError,
      workdir.WorkdirError,
    )
  ) as error:
    train.train(config, path)
  assert not path.exists()
  return str(error.value)


def test_sources_that_are_missing(tmp_path):
  path = tmp_path / "run"
  # The error comes before data are read, so missing data do not matter.
  nowhere = {"data__source": f"folder:{tmp_path / 'none'}"}
  message = train_fails(refine("", **nowhere), path)
  assert "it is empty" in message and "--config.generator.source" in message
  message = train_fails(refine(tmp_path / "none", **nowhere), path)
  assert "nothing there" in message
  (tmp_path / "folder").mkdir()
  message = train_fails(refine(tmp_path / "folder"), path)
  assert "holds no run" in message
  workdir.claim(tmp_path / "begun", sngan(), write=True)
  message = train_fails(refine(tmp_path / "begun"), path)
  assert "holds no checkpoint" in message


def test_sources_that_do_not_fit(sngan_run, refine_run, tmp_path):
  path = tmp_path / "run"
  message = train_fails(refine(sngan_run, generator__width=16), path)
  assert "expected base_width 16" in message and "found base_width 8" in message
  message = train_fails(refine(sngan_run, generator__out_factor=2.0), path)
  assert "expected out_factor 2.0; found out_factor 1.0" in message
  message = train_fails(refine(sngan_run, model__latent_size=6), path)
  assert "generator/params/dense/kernel" in message
  assert (
    "expected" in message and "(6, 128)" in message and "(4, 128)" in message
  )
  message = train_fails(retrofit(sngan_run), path)
  assert "expected network Decoder" in message
  message = train_fails(refine(refine_run), path)
  assert "a run of 'joint', expected one that learns a generator" in message
  converted(tmp_path / "g.npz", norm_epsilon=1e-3)
  message = train_fails(refine(tmp_path / "g.npz"), path)
  assert "expected norm_epsilon 1e-05; found norm_epsilon 0.001" in message
  (tmp_path / "broken.npz").write_bytes(b"no npz")
  message = train_fails(refine(tmp_path / "broken.npz"), path)
  assert "damaged or foreign" in message


BASIS = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32) / 16


def own(with_variables):
  """Returns a linear generator. Its basis is a variable, or closed over."""

  def apply(variables, z):
    basis = variables["basis"] if with_variables else BASIS
    return (z @ basis).reshape(-1, 16, 16, 1)

  variables = {"basis": BASIS} if with_variables else ()
  return networks.Generator(apply, (3,), variables)


@pytest.mark.slow
def test_a_hat_on_a_generator_that_is_given(tmp_path):
  config, generator = refine("", train__num_steps=2), own(True)
  assert train.train(config, tmp_path, generator) is None
  state = state_of(config, tmp_path, generator)
  chex.assert_trees_all_equal(state.generator, generator.variables)
  restored = sample.restore(config, tmp_path, generator)
  assert sample.draw(restored).samples.shape == (12, 16, 16, 1)
  # Every G(z) lies in the span of the basis.
  rows = sample.draw_paths(restored).generated.reshape(-1, 256)
  _, distance, *_ = np.linalg.lstsq(BASIS.T, rows.T, rcond=None)
  assert distance.max() < 1e-6
  with pytest.raises(errors.ConfigError, match=r"Give it to sample\.restore"):
    sample.restore(config, tmp_path)


def test_a_generator_may_close_over_its_parameters(tmp_path):
  config, mesh = refine(""), sharding.make_mesh()
  objective = objectives.make(config, mesh, own(False))
  with checkpoint.Checkpoints(tmp_path) as saved:
    state, _ = restore.restore_or_init(config, objective, mesh, saved)
    saved.save(1, state, {})
  chex.assert_trees_all_equal(state_of(config, tmp_path, own(False)), state)


def test_given_generators_that_do_not_fit():
  mesh = sharding.make_mesh()
  wrong = networks.Generator(lambda _, z: z.reshape(-1, 2, 2, 1), (4,))
  with pytest.raises(errors.ConfigError, match=r"\(2, 2, 2, 1\).*expected"):
    objectives.make(refine(""), mesh, wrong)
  with pytest.raises(errors.ConfigError, match="takes no generator"):
    objectives.make(tiny.config(), mesh, own(True))
