"""Checks what may change when a run is resumed, and what is recorded."""

import shutil

import jax
import numpy as np
import pytest
import tiny
from absl import flags
from ml_collections import config_flags
from PIL import Image

from hatebm_jax import (
  config_flag,
  errors,
  evaluation,
  report,
  restore,
  sample,
  train,
)
from hatebm_jax.run import changes, workdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("run") / "run"
  train.train(tiny.config(train__num_steps=2), path)
  return path


@pytest.fixture(name="path")
def copy_of_the_run(trained, tmp_path):
  return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.slow
def test_a_lower_learning_rate_holds_from_here_on(trained, path, capsys):
  """It acts on the steps after the checkpoint, and the run says so."""
  before = tiny.config().hat.learning_rate
  config = tiny.config(
    hat__learning_rate=0.0, hat__max_grad_norm=50.0, chains__num_chains=0
  )
  train.train(config, path)
  printed = capsys.readouterr().out
  assert f"learning_rate: {before} -> 0.0 from training step 2 on" in printed
  assert (
    "config.hat.max_grad_norm: None -> 50.0 from training step 2" in printed
  )
  # Hats do not move at rate 0, so those of steps 2 and 4 are the same.
  newest = sample.restore(config, path)
  assert newest.step == 4
  older = sample.restore(tiny.config(), trained)
  for a, b in zip(leaves(newest), leaves(older), strict=True):
    np.testing.assert_array_equal(a, b)
  fields = [x["field"] for x in changes.read(path)]
  assert fields == ["hat.learning_rate", "hat.max_grad_norm"]
  # The protocol and the report show it.
  protocol = evaluation.evaluate(newest).figures["protocol"]
  assert protocol["config_changes"] == changes.read(path)
  assert "hat.max_grad_norm" in report.make(path)
  assert not sample.restore(tiny.config(sample__checkpoint=2), path).changes
  # Clipping may end again.
  config.hat.max_grad_norm, config.train.num_steps = None, 6
  train.train(config, path)
  assert changes.read(path)[-1] == {
    "step": 4,
    "field": "hat.max_grad_norm",
    "from": 50.0,
    "to": None,
  }


def leaves(restored):
  """Returns the arrays of a restored hat."""
  return jax.tree.leaves(restored.variables[0])


def write_images(folder, num):
  folder.mkdir(parents=True)
  noise = np.random.default_rng(0).integers(0, 256, (num, 16, 16), np.uint8)
  for i, image in enumerate(noise):
    Image.fromarray(image).save(folder / f"{i}.png")
  return f"folder:{folder}"


@pytest.mark.slow
def test_images_that_have_moved(tmp_path, capsys):
  source = write_images(tmp_path / "before", 9)
  path = tmp_path / "run"
  train.train(tiny.config(train__num_steps=2, data__source=source), path)
  (tmp_path / "before").rename(tmp_path / "after")
  config = tiny.config(train__num_steps=4)
  # Samples need no images.
  assert sample.draw(sample.restore(config, path)).samples.shape[0] == 12
  config.data.source = write_images(tmp_path / "others", 8)
  with pytest.raises(
    errors.ConfigError, match=r"expected the 9 images .* has 8 images"
  ):
    train.train(config, path)
  assert workdir.read_config(path).data.source == source
  config.data.source = f"folder:{tmp_path / 'after'}"
  assert train.train(config, path) is None
  assert workdir.read_config(path).data.source == config.data.source
  # An image that went missing does not end the run, but is said.
  (tmp_path / "after" / "3.png").unlink()
  config.train.num_steps = 5
  capsys.readouterr()
  train.train(config, path)
  assert "The run was trained on 9 images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_first_try_does_not_claim_the_workdir(tmp_path, capsys):
  # This learning rate sends the energies to infinity within a few steps.
  broken = tiny.config(
    hat__learning_rate=1e3,
    model__latent_size=6,
    train__num_steps=8,
    train__checkpoint_every=100,
  )
  with pytest.raises(train.TrainingError, match="there is none"):
    train.train(broken, tmp_path)
  assert workdir.read_metrics(tmp_path)
  config = tiny.config(train__num_steps=2)
  assert train.train(config, tmp_path) is None
  printed = capsys.readouterr().out
  assert "model.latent_size=6, the command says 4" in printed
  assert workdir.read_config(tmp_path).model.latent_size == 4
  assert not (tmp_path / train.NON_FINITE).exists()
  assert [line["step"] for line in workdir.read_metrics(tmp_path)] == [1, 2]


def test_a_source_that_is_missing_leaves_the_run_as_it_is(path):
  config = tiny.config(data__source="folder:/nowhere")
  with pytest.raises(errors.UserError, match="nowhere"):
    train.train(config, path)
  assert workdir.read_config(path).data.source == "digits"


@pytest.mark.parametrize(
  ("wanted", "keep", "allowed"), [(3, 3, "2, 4, 6"), (2, 2, "4, 6")]
)
def test_a_checkpoint_that_will_not_be_there(path, wanted, keep, allowed):
  config = tiny.config(
    train__num_steps=6, train__keep_checkpoints=keep, sample__checkpoint=wanted
  )
  with pytest.raises(errors.ConfigError, match=f"={wanted}: .* {allowed}"):
    restore.check_step(config, path)
  config.sample.checkpoint = 4
  restore.check_step(config, path)


def test_checkpoints_that_are_kept(path):
  config = tiny.config(
    train__num_steps=10,
    train__keep_checkpoints=1,
    train__keep_every=4,
    sample__checkpoint="all",
  )
  with pytest.raises(errors.ConfigError, match=r"='all': .* 4, 8, 10"):
    restore.check_step(config, path)
  config.sample.checkpoint = 8
  restore.check_step(config, path)
  config.train.keep_every = 3
  with pytest.raises(errors.ConfigError, match=r"keep_every=3.*checkpoint_ev"):
    train.train(config, path)


def test_a_test_loss_that_no_objective_has(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"test_every=2: expected 0"):
    train.train(tiny.config(train__test_every=2), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_names_that_a_command_line_sets(monkeypatch):
  command = [
    "command",
    f"--config={config_flag.find('digits')}",
    "--config.seed=7",
    "--config.data.source=digits",
  ]
  # The flag looks for overrides there.
  monkeypatch.setattr("sys.argv", command)
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values)
  values(command)
  assert config_flag.given(values["config"]) == {"seed", "data.source"}


@pytest.mark.slow
def test_images_of_another_seed(path):
  config = tiny.config()
  config.seed = 7
  same = sample.draw(sample.restore(config, path))
  other = sample.draw(sample.restore(config, path, given={"seed"}))
  assert np.any(same.samples != other.samples)
  first = sample.draw(sample.restore(tiny.config(), path))
  np.testing.assert_array_equal(same.samples, first.samples)


@pytest.mark.slow
def test_an_autoencoder_whose_images_are_gone_still_draws(tmp_path, capsys):
  source = write_images(tmp_path / "images", 9)
  config = tiny.config(
    "digits_autoencoder",
    data__source=source,
    train__num_steps=1,
    train__test_every=0,
  )
  train.train(config, tmp_path / "run")
  restored = sample.restore(config, tmp_path / "run")
  shown = sample.pictures(restored, sample.draw(restored))
  assert set(shown) == {"generator"}
  assert "No reconstructions are drawn" in capsys.readouterr().err
