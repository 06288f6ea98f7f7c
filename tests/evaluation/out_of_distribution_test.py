import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import tiny
from image_files import save_gray

from hatebm_jax import chains, errors, pixels, sample, sharding
from hatebm_jax.evaluation import (
  console,
  energies,
  hat_scores,
  ood_pairs,
  out_of_distribution,
)
from hatebm_jax.metrics import ood

RUN = pathlib.Path(__file__).parents[1] / "fixtures" / "workdir_5675db3"


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
  """Returns a run of four training steps on digits."""
  path = shutil.copytree(RUN, tmp_path_factory.mktemp("runs") / "run")
  return sample.restore(tiny.config(), path)


def test_energy_is_the_hats(restored):
  images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 1), np.uint8)
  (variables, _), hat = restored.variables, restored.networks.hat
  expected = hat.apply(variables, pixels.to_float(images))
  found = energies.scorer(restored)(images)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_scores_are_the_same_on_any_number_of_devices(restored):
  images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 1), np.uint8)
  # There are 8 images in a batch.
  found = hat_scores.scorer(restored)(images)
  device = jax.devices()[0]
  one = restored._replace(
    mesh=sharding.make_mesh([device]),
    variables=jax.device_put(restored.variables, device),
  )
  alone = hat_scores.scorer(one)(images)
  hat_fn, _ = chains.bind(restored.networks, restored.variables)
  x = pixels.to_float(images)
  settings = hat_scores.drift_settings(restored.config)
  expected = (
    hat_scores.gradient_norm(hat_fn, x),
    hat_scores.drift(hat_fn, x, settings),
  )
  for several, single, values in zip(found, alone, expected, strict=True):
    assert several.shape == (11,) and (several > 0).all()
    np.testing.assert_allclose(several, values, rtol=1e-3)
    np.testing.assert_allclose(single, values, rtol=1e-3)


def _measure(restored, **fields):
  config = restored.config.copy_and_resolve_references()
  config.ood.update(fields)
  return out_of_distribution.measure(restored._replace(config=config))


def _rows(result):
  """Returns the cells of the console's table by the name of the score."""
  table = console.table({"sets": {}, "protocol": {}, "ood": result})
  rows = (re.split(r"  +", line.strip()) for line in table.splitlines())
  return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_measures_and_draws(restored, tmp_path):
  source = save_gray(tmp_path / "out", 16, 12)
  sets = source, source, "flipped"
  result, pictures = _measure(restored, sets=sets, bootstraps=10, num_images=10)
  assert list(result["sets"]) == [source, "digits test, flipped"]
  found = result["sets"][source]
  assert result["in_distribution"] == "digits test"
  assert (found["num_in"], found["num_out"]) == (10, 10)
  # The other 350 of 360 test images give the mean energy.
  assert found["num_held_out"] == 350
  assert list(found["scores"]) == [
    "energy",
    "gradient_norm",
    "drift",
    "typicality",
    "mahalanobis",
    "brightness",
    "contrast",
    "total_variation",
    "png_size",
  ]
  # Noise is far from the digits.
  assert found["scores"]["mahalanobis"]["auroc"]["value"] > 0.9
  # A trivial score tells noise from digits, and none sees a flip of the rows.
  assert found["scores"]["png_size"]["auroc"]["value"] > 0.9
  flipped = result["sets"]["digits test, flipped"]["scores"]
  assert flipped["contrast"]["auroc"]["value"] < 0.6
  # There is one panel for each name, and two sources have the same name.
  assert pictures.keys() == {"ood"}
  assert pictures["ood"].shape == (600, 600, 3)
  rows = _rows(result)
  assert rows["png size"][0].startswith("0.9") and len(rows["png size"]) == 2
  # The row above them has the names of the sets.
  assert list(rows)[1:] == [x.replace("_", " ") for x in found["scores"]]


def test_the_figures_of_the_energy_are_those_of_the_energy_alone(restored):
  result, _ = _measure(restored, sets=("permuted_blocks",), bootstraps=10)
  pair = ood_pairs.load(restored.config, "permuted_blocks")
  both = pair.images_in, pair.images_out
  scores = map(energies.scorer(restored), both)
  found = result["sets"]["digits test, permuted_blocks"]["scores"]
  expected = ood.record(ood.detection(*scores, 10, restored.config.seed))
  assert found["energy"] == {"higher_is_out": True, **expected}
  # The directions of the hat's scores do not follow the result.
  for name in ("gradient_norm", "drift"):
    assert found[name]["higher_is_out"] is True
  # All test images are scored, so none are left to take a mean of.
  for name in ("typicality", "mahalanobis"):
    assert name not in found and name not in _rows(result)


def test_a_hat_without_features_has_the_other_scores(restored):
  networks = restored.networks
  hat = networks.hat._replace(features=None)
  restored = restored._replace(networks=networks._replace(hat=hat))
  result, _ = _measure(
    restored, sets=("flipped",), bootstraps=10, num_images=10
  )
  found = result["sets"]["digits test, flipped"]["scores"]
  assert "typicality" in found and "mahalanobis" not in found


def test_both_sides_are_encoded_if_asked_to(restored):
  result, _ = _measure(
    restored, sets=("flipped",), bootstraps=10, jpeg_quality=75
  )
  assert result["jpeg_quality"] == 75
  table = console.table({"sets": {}, "protocol": {}, "ood": result})
  assert "both sides as JPEGs of quality 75" in table
  assert "A lower config.ood.num_images" in table


@pytest.mark.parametrize(
  "field, value, found",
  [
    ("num_images", 0, "expected 1 or more"),
    ("bootstraps", 0, "expected 1 or more"),
  ],
)
def test_settings_are_checked(restored, field, value, found):
  config = restored.config.copy_and_resolve_references().unlock()
  config.ood[field] = value
  with pytest.raises(errors.ConfigError, match=found):
    out_of_distribution.measure(restored._replace(config=config))
