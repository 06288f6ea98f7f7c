import jax
import numpy as np
import pytest
import tiny
from PIL import Image

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
  # Fewer images than a batch are drawn in a batch of their own.
  three = draw(path, sample__num_images=3, sample__batch_size=16).samples
  assert three.shape == (3, 16, 16, 1)
  assert np.abs(np.int16(three) - np.int16(eight[:3])).max() <= 1


def test_no_more_chains_run_than_images_are_drawn(path, monkeypatch):
  sizes, compile_chains = [], sample.compile_chains

  def compile_and_count(restored):
    chains = compile_chains(restored)
    return lambda indices: (sizes.append(len(indices)), chains(indices))[1]

  monkeypatch.setattr(sample, "compile_chains", compile_and_count)
  draw(path, sample__num_images=3, sample__batch_size=16)
  draw(path, sample__num_images=20, sample__batch_size=16)
  num_devices = len(jax.devices())
  assert sizes == [-(-3 // num_devices) * num_devices, 16, 16]


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


def write(path, out, **overrides):
  """Draws images as a command does; returns what is in the folder."""
  restored = sample.restore(tiny.config(**overrides), path)
  drawn = sample.read(restored, out)
  found = drawn is not None
  if drawn is None:
    drawn = sample.draw(restored)
    sample.write(restored, out, drawn)
  assert len(drawn.samples) == restored.config.sample.num_images
  return drawn, found


def test_images_are_drawn_once_and_their_weights_hashed_once(
  path, tmp_path, monkeypatch
):
  hashed, digest = [], sample.digest
  count = lambda variables: hashed.append(1) or digest(variables)
  monkeypatch.setattr(sample, "digest", count)
  restored = sample.restore(tiny.config(), path)
  first = sample.read_or_draw(restored, tmp_path)
  assert len(hashed) == 1
  monkeypatch.setattr(sample, "draw", None)  # The file has the images.
  again = sample.read_or_draw(restored, tmp_path)
  assert len(hashed) == 2
  np.testing.assert_array_equal(first.samples, again.samples)
  np.testing.assert_array_equal(first.generated, again.generated)


def images_of(out):
  """Returns the images of the files in a folder by name."""
  found = {}
  for file in sorted((out / "samples").glob("*.npz")):
    with np.load(file) as content:
      found[file.name] = content["images"]
  return found


@pytest.mark.slow
def test_images_are_never_replaced_by_fewer_or_by_others(
  path, tmp_path, capsys
):
  many, found = write(path, tmp_path, sample__num_images=20)
  assert not found
  capsys.readouterr()
  few, found = write(path, tmp_path, sample__num_images=9)
  assert found and "holds 20 images" in capsys.readouterr().out
  np.testing.assert_array_equal(few.samples, many.samples[:9])
  np.testing.assert_array_equal(few.generated, many.generated[:9])
  # `write` alone keeps them too.
  restored = sample.restore(tiny.config(sample__num_images=9), path)
  sample.write(restored, tmp_path, few)
  assert list(images_of(tmp_path)) == ["00000004_raw.npz"]
  # More images of the same settings take their place.
  more, found = write(path, tmp_path, sample__num_images=24)
  assert not found
  np.testing.assert_array_equal(
    images_of(tmp_path)["00000004_raw.npz"], more.samples
  )
  # Images of other settings stand beside them.
  capsys.readouterr()
  other, found = write(path, tmp_path, evaluate__num_steps=2)
  assert not found and "which stay" in capsys.readouterr().out
  stored = images_of(tmp_path)
  assert list(stored) == ["00000004_2_raw.npz", "00000004_raw.npz"]
  np.testing.assert_array_equal(stored["00000004_raw.npz"], more.samples)
  np.testing.assert_array_equal(stored["00000004_2_raw.npz"], other.samples)
  assert (tmp_path / "samples" / "00000004_2_raw_grid.png").exists()
  # The other settings find their own file again.
  assert write(path, tmp_path, evaluate__num_steps=2)[1]
  assert write(path, tmp_path, sample__num_images=24)[1]


def test_samples_of_other_weights_are_not_taken_for_these(path, tmp_path):
  restored = sample.restore(tiny.config(), path)
  drawn = sample.draw(restored)
  sample.write(restored, tmp_path, drawn)
  hat, generator = restored.variables
  changed = restored._replace(
    variables=(hat, jax.tree.map(lambda x: 1.01 * x, generator))
  )
  # The same step of a run that was trained anew in the same workdir.
  assert sample.read(changed, tmp_path) is None
  assert sample.read(restored, tmp_path) is not None


def test_images_are_written_as_pngs_on_request(path, tmp_path):
  drawn, _ = write(path, tmp_path)
  folder = tmp_path / "samples" / "00000004_raw"
  assert not folder.exists()
  # They are drawn already; only the PNGs are missing.
  assert write(path, tmp_path, sample__png=True)[1]
  names = [file.name for file in sorted(folder.iterdir())]
  assert names == [f"{i:05d}.png" for i in range(12)]
  for name, image in zip(names, drawn.samples, strict=True):
    np.testing.assert_array_equal(
      np.asarray(Image.open(folder / name)), image[..., 0]
    )
