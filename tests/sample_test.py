import numpy as np
import pytest
import tiny

from hatebm_jax import chains, pixels, sample, train
from hatebm_jax.run import workdir


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train.train(tiny.config(), path)
  return path


def draw(path, **overrides):
  return sample.draw(sample.restore(tiny.config(**overrides), path))


def test_an_image_depends_on_seed_and_index_alone(path):
  eight = draw(path, sample__num_images=20).samples
  sixteen = draw(path, sample__num_images=20, sample__batch_size=16).samples
  assert eight.shape == (20, 16, 16, 1) and eight.dtype == np.uint8
  # Another batch size changes the sums, so rounding to uint8 may differ by one.
  assert np.abs(np.int16(eight) - np.int16(sixteen)).max() <= 1
  assert len(np.unique(eight.reshape(20, -1), axis=0)) == 20


def test_files_are_written_and_read_back(path, capsys):
  restored = sample.restore(tiny.config(), path)
  assert restored.step == 4
  drawn = sample.draw(restored)
  sample.write(restored, path, drawn)
  with np.load(path / "samples" / "00000004_raw.npz") as file:
    np.testing.assert_array_equal(file["images"], drawn.samples)
    np.testing.assert_array_equal(file["generator"], drawn.generated)
    assert file["images"].shape == (12, 16, 16, 1)
  printed = capsys.readouterr().out
  for name in ("grid", "generator", "paths", "split"):
    file = path / "samples" / f"00000004_raw_{name}.png"
    assert file.exists() and str(file) in printed
  assert {file.suffix for file in (path / "samples").iterdir()} == {
    ".npz",
    ".png",
  }


def test_averaged_weights_are_other_weights(path):
  raw, averaged = (
    draw(path, sample__weights=weights) for weights in ("raw", "averaged")
  )
  assert np.any(raw.samples != averaged.samples)


def test_path_ends_in_the_sample(path):
  paths = sample.draw_paths(sample.restore(tiny.config(), path))
  frames = pixels.to_uint8(paths.generated + paths.residuals)
  assert frames.shape == (5, 8, 16, 16, 1)  # the start and four steps
  drawn = draw(path, sample__num_images=8)
  assert np.abs(np.int16(frames[-1]) - np.int16(drawn.samples)).max() <= 1
  # The path starts at G(z) + y. y has scale 0.01, which is a few grey levels.
  assert np.abs(np.int16(frames[0]) - np.int16(drawn.generated)).max() <= 8


def test_evaluation_settings_fall_back_to_training():
  config = tiny.config()
  settings = chains.evaluation_plan(config).settings
  assert settings.temperature == config.langevin.temperature
  assert settings.num_steps == 4 and settings.max_drift_y is None
  config.evaluate.temperature = 0.5
  assert chains.evaluation_plan(config).settings.temperature == 0.5


def test_an_older_checkpoint_is_restored_when_asked_for(path):
  older = draw(path, sample__checkpoint=2)
  assert np.any(older.samples != draw(path).samples)
  restored = sample.restore(tiny.config(sample__checkpoint=2), path)
  assert restored.step == 2
  with pytest.raises(workdir.WorkdirError, match=r"checkpoint=3.*2, 4"):
    sample.restore(tiny.config(sample__checkpoint=3), path)


def test_no_run_is_a_clear_error(tmp_path):
  with pytest.raises(workdir.WorkdirError, match="holds no run"):
    sample.restore(tiny.config(), tmp_path)
  workdir.claim(tmp_path, tiny.config(), write=True)
  with pytest.raises(workdir.WorkdirError, match="holds no checkpoint"):
    sample.restore(tiny.config(), tmp_path)
