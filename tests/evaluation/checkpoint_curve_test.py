"""All checkpoints of a run are measured, and none twice."""

import copy
import json

import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import evaluation, sample, train
from hatebm_jax.evaluation import checkpoint_curve
from hatebm_jax.run import checkpoint, files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns a run whose checkpoints of even steps are kept."""
  path = tmp_path_factory.mktemp("run")
  train.train(
    tiny.config(
      train__num_steps=5,
      train__checkpoint_every=1,
      train__keep_checkpoints=1,
      train__keep_every=2,
    ),
    path,
  )
  return path


def config(**overrides):
  return tiny.config(sample__checkpoint="all", **overrides)


@pytest.fixture(scope="module")
def curve(run):
  return evaluation.measure_checkpoints(config(), run)


def key(point):
  return point["step"], point["weights"]


@pytest.mark.slow
def test_the_newest_checkpoint_and_multiples_are_kept(run):
  assert checkpoint.steps(run) == [2, 4, 5]


@pytest.mark.slow
def test_a_point_is_what_an_evaluation_of_its_checkpoint_finds(run, curve):
  assert [key(point) for point in curve["points"]] == [
    (step, weights) for step in (2, 4, 5) for weights in ("raw", "averaged")
  ]
  point = curve["points"][3]
  one = tiny.config(
    sample__checkpoint=4, sample__weights="averaged", chains__num_chains=0
  )
  found = evaluation.evaluate(sample.restore(one, run)).figures
  found["sets"].pop("held_out")
  found = json.loads(json.dumps(found))
  assert point["protocol"] == found["protocol"]
  assert point["sets"] == found["sets"]
  distances = {
    key(x): checkpoint_curve.distance(x)["mean"] for x in curve["points"]
  }
  assert len(set(distances.values())) == 6
  best = curve["best"]
  assert (best["step"], best["weights"]) == min(distances, key=distances.get)
  assert best["frechet_distance"] == min(distances.values())
  assert best["num_images"] == 12 and best["num_reference"] == 1437


@pytest.mark.slow
def test_figures_that_are_there_are_not_computed_again(
  run, curve, tmp_path, capsys, monkeypatch
):
  # A command that was stopped after three points has left them. Another
  # figure shows that a point was kept.
  left = {"points": copy.deepcopy(curve["points"][:3])}
  for point in left["points"]:
    checkpoint_curve.distance(point)["mean"] = 0.5
  left["points"][1]["weights_sha256"] = "of a run that went back"
  files.write_json(tmp_path / evaluation.CURVE_FILE, left)
  seen = []

  def note(found):
    evaluation.save_curve(found, tmp_path)
    seen.append(len(found["points"]))

  known, hashed, digest = evaluation.read_curve(tmp_path), [], sample.digest
  count = lambda variables: hashed.append(1) or digest(variables)
  monkeypatch.setattr(sample, "digest", count)
  found = evaluation.measure_checkpoints(config(), run, known, note)
  assert seen == [3, 3, 3, 4, 5, 6]
  assert len(hashed) == 6  # The weights of each point are hashed once.
  means = [checkpoint_curve.distance(x)["mean"] for x in found["points"]]
  expected = [checkpoint_curve.distance(x)["mean"] for x in curve["points"]]
  assert means == [0.5, expected[1], 0.5, *expected[3:]]
  evaluation.write_curve(found, tmp_path)
  assert evaluation.read_curve(tmp_path) == found
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ["step", "weights", "FD-digits"]
  assert "Best: raw weights of step 2, FD-digits 0.5 by 12 images." in lines[7]
  with Image.open(tmp_path / "evaluation_checkpoints.png") as picture:
    assert np.ptp(np.asarray(picture)) > 100


@pytest.mark.slow
def test_figures_of_another_protocol_stay_in_another_file(
  run, curve, tmp_path, capsys
):
  evaluation.save_curve(curve, tmp_path)
  other = config(sample__num_images=10)
  first = []

  def stop(found):
    first.append(found)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    evaluation.measure_checkpoints(other, run, curve, stop)
  (point,) = first[0]["points"]
  assert point["protocol"]["num_images"] == 10
  evaluation.save_curve(first[0], tmp_path)
  assert evaluation.read_curve(tmp_path) == first[0]
  kept = tmp_path / "evaluation_checkpoints_1.json"
  assert json.loads(kept.read_text()) == curve
  assert str(kept) in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{}", '{"points": [{"step": 1}]}'])
def test_a_file_of_something_else_is_refused(content, tmp_path):
  (tmp_path / evaluation.CURVE_FILE).write_text(content)
  with pytest.raises(files.FileError, match="expected the figures of check"):
    evaluation.read_curve(tmp_path)
