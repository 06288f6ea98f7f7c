import json

import numpy as np
import pytest
import tiny

from hatebm_jax import data, errors, evaluation, report, sample, train
from hatebm_jax.evaluation import image_quality
from hatebm_jax.metrics import moments
from hatebm_jax.run import files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns the workdir of a trained run on digits."""
  path = tmp_path_factory.mktemp("run")
  train.train(tiny.config(), path)
  return path


def _config(path, **overrides):
  config = tiny.config(
    metrics__repeats=2,
    ood__sets=(f"folder:{path / 'images'}",),
    ood__num_images=30,
    ood__bootstraps=20,
    chains__num_chains=8,
    chains__multiple=2,
    **overrides,
  )
  return config


def _evaluate(path, config):
  restored = sample.restore(config, path)
  evaluation.write(evaluation.evaluate(restored), path)
  return json.loads((path / evaluation.FILE).read_text())


@pytest.fixture(scope="module")
def evaluated(run):
  """Returns evaluation.json of a full evaluation."""
  grid = sample.images.grid(np.zeros((4, 16, 16, 1), np.uint8))
  for i in range(3):
    files.write_png(run / "images" / "more" / f"{i}.png", grid)
  return _evaluate(run, _config(run))


@pytest.mark.slow
def test_the_same_evaluation_twice_is_the_same_but_for_times(run, evaluated):
  second = _evaluate(run, _config(run))
  assert evaluated["seconds"] > 0 and second["seconds"] > 0
  assert evaluated | {"seconds": 0} == second | {"seconds": 0}


def test_protocol(run, evaluated):
  found = dict(evaluated["protocol"])
  langevin = found.pop("langevin")
  assert langevin["num_steps"] == 4 and langevin["max_drift_y"] is None
  digits_network = image_quality.choose_space(tiny.config()).weights
  expected = {
    "checkpoint_step": 4,
    "weights": "raw",
    "seed": 0,
    "init_scale_z": 1.0,
    "init_scale_y": 0.01,
    "samples": None,
    "num_images": 12,
    "repeats": 2,
    "data": "digits",
    "split": "train",
    "source": "digits train",
    "split_images": 1437,
    "num_reference": 1437,
    "image_size": 16,
    "network": "FD-digits",
    "network_sha256": files.sha256(digits_network),
    "statistics": None,
  }
  assert {key: found[key] for key in expected} == expected
  assert found["judge_accuracy"] > 0.97


def test_repeats_are_of_other_images_and_give_the_spread(run, evaluated):
  sets = evaluated["sets"]
  for name in ("hat", "generator"):
    figure = sets[name]["frechet_distance"]
    assert len(set(figure["values"])) == 2
    assert figure["mean"] == np.mean(figure["values"])
    assert figure["std"] == np.std(figure["values"], ddof=1)
  assert sets["held_out"]["num_images"] == 360
  assert sets["held_out"]["recognised"]["std"] is None
  restored = sample.restore(_config(run), run)
  first, second = (sample.draw(restored, repeat).generated for repeat in (0, 1))
  longer = tiny.config(sample__num_images=24)
  both = sample.draw(sample.restore(longer, run)).generated
  np.testing.assert_array_equal(np.concatenate([first, second]), both)


def test_all_of_a_hat_is_there(run, evaluated):
  (scores,) = evaluated["ood"]["sets"].values()
  # A folder without splits gives all of its images.
  assert scores["num_in"] == 30 and scores["num_out"] >= 3
  assert scores["resized_to"] == 8
  assert 0 <= scores["scores"]["energy"]["auroc"]["value"] <= 1
  chains = evaluated["chains"]
  assert chains["num_steps"] == 2 * chains["training_steps"] == 6
  for name in ("ood", "chains", "long_run", "nearest"):
    assert (run / f"evaluation_{name}.png").stat().st_size > 1_000


def test_table(evaluated):
  lines = evaluation.table(evaluated).splitlines()
  assert lines[0] == (
    "FD-digits: Frechet distance to 1437 train images in the features of a "
    "small network; this is not FID."
  )
  hat = next(line for line in lines if "hat samples" in line)
  figure = evaluated["sets"]["hat"]["frechet_distance"]
  assert f"{figure['mean']:.1f} +- {figure['std']:.1f}" in hat
  assert any("AUROC" in line for line in lines)
  assert any("stuck" in line for line in lines)


def test_given_samples_are_measured_without_a_run(tmp_path):
  digits = data.load_all(data.open_source(tiny.config().data, "train"))
  file = tmp_path / "samples.npz"
  np.savez(file, images=digits)
  config = tiny.config(metrics__samples=str(file))
  result = evaluation.evaluate_file(config)
  figures = result.figures["sets"]["samples"]
  assert figures["frechet_distance"]["mean"] < 1e-9
  assert figures["precision"]["mean"] == 1
  protocol = result.figures["protocol"]
  assert protocol["checkpoint_step"] is None
  expected = {"file": "samples.npz", "sha256": files.sha256(file)}
  assert protocol["samples"] == expected


@pytest.mark.parametrize(
  "arrays, found",
  [
    ({"images": np.zeros((3, 16, 16, 3), np.uint8)}, r"\(3, 16, 16, 3\)"),
    ({"images": np.zeros((3, 16, 16, 1))}, "float64"),
    (
      {"images": np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)},
      "2 or more.*found 1",
    ),
    ({"x": np.zeros(1)}, "images"),
  ],
)
def test_other_files_are_refused(tmp_path, arrays, found):
  file = tmp_path / "samples.npz"
  np.savez(file, **arrays)
  config = tiny.config(metrics__samples=str(file))
  with pytest.raises(errors.ConfigError, match=found):
    evaluation.evaluate_file(config)


@pytest.mark.slow
def test_statistics_that_were_written_give_the_same_distance(run, evaluated):
  file = run / evaluation.REFERENCE_FILE
  assert moments.load(file, 64).count == 1437
  config = tiny.config(metrics__statistics=str(file), chains__num_chains=0)
  found = _evaluate(run, config)
  assert found["protocol"]["statistics"]["sha256"] == files.sha256(file)
  assert found["protocol"]["num_reference"] == 1437
  for name, figures in found["sets"].items():
    expected = evaluated["sets"][name]["frechet_distance"]["values"][0]
    assert figures["frechet_distance"]["values"][0] == expected
    # These figures need the features of the reference images.
    assert "precision" not in figures
  assert "chains" not in found and "ood" not in found


def test_without_a_network_the_hat_is_still_looked_at(run, tmp_path, capsys):
  digits = data.load_all(data.open_source(tiny.config().data, "test"))
  for i, image in enumerate(digits[:20]):
    files.write_png(tmp_path / "gray" / f"{i:02d}.png", image)
  restored = sample.restore(_config(run), run)
  config = restored.config.copy_and_resolve_references()
  config.data.source = f"folder:{tmp_path / 'gray'}"
  config.ood.sets = ()
  restored = restored._replace(config=config)
  result = evaluation.evaluate(restored)
  assert capsys.readouterr().out == "" and not list(tmp_path.glob("*.*"))
  evaluation.write(result, tmp_path)
  assert "no network for these images ships" in capsys.readouterr().out
  figures = result.figures
  assert figures["sets"] == {} and figures["protocol"]["network"] is None
  assert figures["protocol"]["checkpoint_step"] == 4
  points = figures["chains"]["curve"]
  assert all(point["frechet_distance"] is None for point in points)
  page = report.write(run_with_evaluation(run, tmp_path)).read_text()
  assert "was evaluated without a network" in page and ">None" not in page


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_others_are_kept(run, tmp_path):
  digits = data.load_images(tiny.config().data, "test", 20)
  folder = tmp_path / "bad"
  for i, image in enumerate(digits):
    files.write_png(folder / f"{i:02d}.png", image)
    if i:  # The first image can be read, so the set passes the check.
      (folder / f"{i:02d}.png").write_bytes(b"no image")
  config = tiny.config(
    ood__sets=(f"folder:{folder}",), chains__num_chains=2, train__num_steps=4
  )
  restored, found = sample.restore(config, run), []

  def note(result):
    evaluation.save(result, tmp_path)
    found.append(json.loads((tmp_path / evaluation.FILE).read_text()))

  with pytest.raises(data.DataError, match="at most 10 images"):
    evaluation.evaluate(restored, note=note)
  first, second, third = found
  assert first["sets"].keys() == {"hat", "generator", "held_out"}
  assert "failed" not in first and "chains" not in first
  assert "at most 10 images" in second["failed"]["ood"]
  assert third["chains"]["num_chains"] == 2
  assert third["sets"] == first["sets"] and "ood" not in third
  page = report.write(run_with_evaluation(run, tmp_path)).read_text()
  assert "The part ood of the evaluation failed" in page


def run_with_evaluation(run, path):
  """Gives a folder with an evaluation the config of its run."""
  (path / "config.json").write_text((run / "config.json").read_text())
  return path


def test_one_image_or_no_repeat_cannot_be_measured(run):
  for field in ("sample__num_images", "metrics__repeats"):
    name = field.replace("__", ".")
    config = tiny.config(**{field: 1 if "num" in field else 0})
    with pytest.raises(errors.ConfigError, match=name):
      restored = sample.restore(config, run)
      evaluation.evaluate(restored)
