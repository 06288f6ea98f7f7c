"""Releases of runs: made, checked, used as a run is, and started from."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
import tiny

from hatebm_jax import (
  convert,
  errors,
  evaluation,
  objectives,
  release,
  report,
  restore,
  sample,
  sharding,
  train,
)
from hatebm_jax.models import encoder as encoder_lib
from hatebm_jax.run import checkpoint, files, weights, workdir

FILES = {
  "README.md",
  "config.json",
  "golden.json",
  "samples.png",
  "weights.safetensors",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train.train(tiny.config(), path)
  return path


@pytest.fixture(scope="module")
def released(run, tmp_path_factory):
  return release.from_run(run, tmp_path_factory.mktemp("of") / "digits")


def names(path):
  return {file.name for file in path.iterdir()}


def state_of(config, path):
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(config, objective, mesh, saved)[0]


def test_the_folder(released, run):
  assert names(released) == FILES
  # No optimizer and no bank. A third of the state are raw weights.
  stored = weights.Release(released).shapes(4)
  with checkpoint.Checkpoints(run, read_only=True) as saved:
    of_run = saved.shapes(4)
  assert set(stored) == {
    name
    for name in of_run
    if "/optimizer/" not in name and not name.startswith("bank/")
  }
  assert workdir.read_config(released) == workdir.read_config(run)
  record = json.loads((released / "golden.json").read_text())
  assert record["num_images"] == 16 and record["settings"]["seed"] == 0
  assert record["platform"].keys() == {"device", "system", "jax", "hatebm_jax"}


@pytest.mark.parametrize("kind", ["raw", "averaged"])
def test_samples_are_those_of_the_run_bit_for_bit(released, run, kind):
  config = tiny.config(sample__weights=kind)
  ours, theirs = (sample.restore(config, path) for path in (run, released))
  assert theirs.step == ours.step == 4
  chex.assert_trees_all_equal(ours.variables, theirs.variables)
  np.testing.assert_array_equal(
    sample.draw(ours).samples, sample.draw(theirs).samples
  )


def test_averaged_weights_alone(run, tmp_path):
  alone = release.from_run(run, tmp_path / "alone", averaged_only=True)
  assert not any(
    "/average/" in name for name in weights.Release(alone).shapes(4)
  )
  ours = sample.restore(tiny.config(sample__weights="averaged"), run)
  theirs = sample.restore(workdir.read_config(alone), alone)
  chex.assert_trees_all_equal(ours.variables, theirs.variables)
  assert "averaged ones\nof a run" in (alone / "README.md").read_text()


def test_golden_samples(released, tmp_path, monkeypatch):
  equal, line = release.check(released)
  assert equal and "16 golden samples are equal" in line
  path = shutil.copytree(released, tmp_path / "copy")
  record = json.loads((path / "golden.json").read_text())
  record |= {"images_sha256": "0" * 64, "platform": {"device": "TPU v5e"}}
  files.write_json(path / "golden.json", record)
  equal, line = release.check(path)
  assert not equal and "difference of a pixel is 0 of 255" in line
  assert "made on device TPU v5e. This is device cpu" in line
  (path / "golden.json").write_text("{}")
  with pytest.raises(files.FileError, match="expected the SHA-256"):
    release.check(path)


def test_the_card_says_how_to_use_it(released):
  text = (released / "README.md").read_text()
  assert text.startswith("---\nlicense: unknown\n")
  assert "| training steps | 4 |" in text and "| data | digits |" in text
  assert "--workdir=digits --mode=sample" in text
  assert "have not been evaluated" in text


@pytest.mark.slow
def test_figures_stand_in_the_card_with_their_protocol(run, tmp_path):
  path = shutil.copytree(run, tmp_path / "run")
  restored = sample.restore(tiny.config(chains__num_chains=0), path)
  evaluation.save(evaluation.evaluate(restored), path)
  out = release.from_run(path, tmp_path / "out", license_name="mit")
  text = (out / "README.md").read_text()
  assert text.startswith("---\nlicense: mit\n") and "hat samples" in text
  assert "| `checkpoint_step` | `4` |" in text
  assert names(out) == FILES | {"evaluation.json"}
  # The figures of another training step are not those of this release.
  out = release.from_run(path, tmp_path / "older", checkpoint=2)
  assert weights.Release(out).steps() == [2] and names(out) == FILES
  assert "have not been evaluated" in (out / "README.md").read_text()
  # Nor are those of raw weights.
  out = release.from_run(path, tmp_path / "averaged", averaged_only=True)
  assert names(out) == FILES


@pytest.mark.slow
def test_evaluation_and_report_take_it_as_a_run(released, run, tmp_path):
  config = tiny.config(chains__num_chains=8, metrics__num_references=64)
  ours, theirs = (
    evaluation.evaluate(sample.restore(config, path)).figures
    for path in (run, released)
  )
  assert theirs["protocol"]["checkpoint_step"] == 4
  for figures in (ours, theirs):
    del figures["seconds"]
  assert ours == theirs
  path = shutil.copytree(released, tmp_path / "copy")
  sample.write(*_drawn(path))
  page = report.make(path)
  assert "weights of training step 4, without training state" in page
  assert "Golden samples" in page and "raw weights of training step 4" in page
  assert "Nothing is logged" not in page


def _drawn(path):
  restored = sample.restore(tiny.config(), path)
  return restored, path, sample.draw(restored)


@pytest.mark.slow
def test_a_run_whose_config_has_changed(tmp_path):
  train.train(tiny.config(train__num_steps=2), tmp_path / "run")
  changed = tiny.config(hat__learning_rate=1e-5)
  train.train(changed, tmp_path / "run")
  path = release.from_run(tmp_path / "run", tmp_path / "new")
  restored = sample.restore(tiny.config(), path)
  assert [x["field"] for x in restored.changes] == ["hat.learning_rate"]
  assert restored.config.hat.learning_rate == 1e-5
  path = release.from_run(tmp_path / "run", tmp_path / "old", checkpoint=2)
  restored = sample.restore(tiny.config(), path)
  assert restored.config.hat.learning_rate == 1.2e-3 and not restored.changes


def test_training_refuses_the_folder(released):
  before = names(released)
  with pytest.raises(
    weights.ReleaseError, match=r"--config\.train\.start_from"
  ):
    train.train(tiny.config(), released)
  assert names(released) == before


@pytest.mark.slow
def test_a_new_run_starts_from_it(released, run, tmp_path):
  config = tiny.config(train__start_from=str(released), train__num_steps=2)
  state, old = state_of(config, tmp_path / "run"), state_of(tiny.config(), run)
  for name in ("hat", "generator"):
    new, before = getattr(state, name), getattr(old, name)
    chex.assert_trees_all_equal(new.params, before.params)
    chex.assert_trees_all_equal(new.average, before.average)
    zeros = jax.tree.map(np.zeros_like, new.optimizer)
    chex.assert_trees_all_equal(new.optimizer, zeros)
  # The bank holds images of the generator that it starts from.
  networks = objectives.make(config, sharding.make_mesh()).networks
  _, variables = networks.variables(state, "raw")
  bank = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state.bank)
  images = networks.generator.apply(variables, bank.z)
  np.testing.assert_allclose(bank.x, images, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_run_that_started_from_it_is_resumed_without_it(released, tmp_path):
  path, source = tmp_path / "new", tmp_path / "release"
  shutil.copytree(released, source)
  config = tiny.config(train__start_from=str(source), train__num_steps=2)
  assert train.train(config, path) is None
  shutil.rmtree(source)
  config.train.num_steps = 3
  assert train.train(config, path) is None
  assert sample.restore(config, path).step == 3


def test_weights_to_start_from_that_do_not_fit(released, tmp_path):
  def fails(error, match, name="digits", **fields):
    config = tiny.config(name, train__start_from=str(released), **fields)
    with pytest.raises(error, match=match):
      train.train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()

  fails(errors.ConfigError, "expected 'joint'", "digits_refine")
  fails(
    errors.ConfigError,
    "expected out_factor 1.0; found out_factor 2.0",
    generator__out_factor=1.0,
  )
  fails(
    weights.ReleaseError, "expected float32 .*, found", model__latent_size=6
  )


def test_out_must_be_empty(run, tmp_path):
  (tmp_path / "file").write_text("mine")
  with pytest.raises(weights.ReleaseError, match="found files in it"):
    release.from_run(run, tmp_path)
  assert names(tmp_path) == {"file"}


def test_nothing_is_left_of_a_release_that_failed(run, tmp_path):
  path = shutil.copytree(run, tmp_path / "run")
  (path / "evaluation.json").write_text(
    '{"protocol": {"checkpoint_step": 4}, "sets": 3}'
  )
  with pytest.raises(errors.UserError, match=r"evaluation\.json of the run"):
    release.from_run(path, tmp_path / "out")
  assert names(tmp_path) == {"run"}


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
  """Returns a refined run, whose generator comes from a released SN-GAN."""
  folder = tmp_path_factory.mktemp("joint")
  train.train(tiny.config("digits_sngan", train__num_steps=1), folder / "sngan")
  source = release.from_run(folder / "sngan", folder / "source")
  config = tiny.config(
    "digits_refine", generator__source=str(source), train__num_steps=1
  )
  train.train(config, folder / "refine")
  return folder


@pytest.mark.slow
def test_a_released_generator_is_a_source(joint):
  of_gan = state_of(tiny.config("digits_sngan"), joint / "sngan")
  config = workdir.read_config(joint / "refine")
  state = state_of(config, joint / "refine")
  chex.assert_trees_all_equal(
    state.generator,
    {
      "params": of_gan.generator.params,
      "batch_stats": of_gan.generator_stats,
    },
  )
  found = weights.Release(joint / "source").shapes(1)
  assert {name.partition("/")[0] for name in found} == {
    *("generator", "generator_stats", "discriminator", "spectral"),
  }


@pytest.mark.slow
def test_a_joint_run_starts_from_a_release_without_source(joint, tmp_path):
  path = release.from_run(joint / "refine", tmp_path / "release")
  config = tiny.config(
    "digits_refine", train__start_from=str(path), train__num_steps=1
  )
  old = state_of(workdir.read_config(joint / "refine"), joint / "refine")
  state = state_of(config, tmp_path / "new")
  chex.assert_trees_all_equal(state.generator, old.generator)
  chex.assert_trees_all_equal(state.hat.params, old.hat.params)
  assert train.train(config, tmp_path / "run") is None
  assert sample.restore(config, tmp_path / "run").step == 1


def write_networks(config, path):
  """Writes the networks of an autoencoder; returns the paths of the files."""
  objective = objectives.make(config, sharding.make_mesh())
  state = jax.jit(objective.init)(jax.random.key(0))
  _, variables = objective.networks.variables(state, "raw")
  convert.save_npz(
    path / "generator.npz", objective.networks.generator, variables
  )
  encoder = {"params": state.encoder.params}
  convert.save_npz(path / "encoder.npz", encoder_lib.make(16, 8), encoder)
  return {name: path / f"{name}.npz" for name in ("generator", "encoder")}


def test_converted_files_of_an_autoencoder(tmp_path):
  config = tiny.config("digits_autoencoder")
  paths = write_networks(config, tmp_path)
  path = release.from_files(config, tmp_path / "out", paths)
  restored = sample.restore(config, path)
  assert restored.step == 4 and sample.reconstruct(restored, 3).shape[1] == 3
  with pytest.raises(weights.ReleaseError, match=r"no averaged .*weights=raw"):
    sample.restore(
      tiny.config("digits_autoencoder", sample__weights="averaged"), path
    )
  # A new run starts its averages from the raw weights.
  state = state_of(
    tiny.config("digits_autoencoder", train__start_from=str(path)),
    tmp_path / "new",
  )
  chex.assert_trees_all_equal(state.encoder.average, state.encoder.params)


def test_files_that_do_not_fit(tmp_path):
  config = tiny.config("digits_autoencoder")
  paths = write_networks(config, tmp_path)

  def fails(error, match, paths, **fields):
    other = tiny.config("digits_autoencoder", **fields)
    with pytest.raises(error, match=match):
      release.from_files(other, tmp_path / "out", paths)
    assert not (tmp_path / "out").exists()

  fails(
    weights.ReleaseError,
    r"generator/params/block_0/conv_0/bias: expected the shape \(16,\), found",
    paths,
    model__width=16,
  )
  fails(
    errors.ConfigError,
    r"--generator=\S+ does not fit: expected out_factor 1.0; found out_factor",
    paths,
    generator__out_factor=1.0,
  )
  fails(
    errors.ConfigError,
    "expected norm_epsilon 0.5; found norm_epsilon 0.001",
    paths,
    generator__norm_epsilon=0.5,
  )
  only = {"generator": paths["generator"]}
  fails(errors.ConfigError, "--encoder is missing", only)
  swapped = {"generator": paths["encoder"], "encoder": paths["generator"]}
  fails(errors.ConfigError, "of a generator or decoder, found a enc", swapped)
  more = paths | {"hat": paths["encoder"]}
  fails(errors.ConfigError, "--hat is given, .*--generator and --enc", more)
