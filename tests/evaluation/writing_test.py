"""Tests what `evaluation.write` leaves in a workdir."""

import json

import numpy as np
from PIL import Image

from hatebm_jax import evaluation
from hatebm_jax.metrics import moments


def test_figures_pictures_and_moments_are_written(tmp_path, capsys):
  figures = {"protocol": {"network": None}, "sets": {}, "seconds": 1.0}
  pictures = {
    name: np.random.default_rng(i).integers(0, 256, (9, 7, 3), np.uint8)
    for i, name in enumerate(("long_run", "chains"))
  }
  found = moments.compute(np.eye(3))
  result = evaluation.Result(figures, pictures, found)
  evaluation.write(result, tmp_path)
  assert json.loads((tmp_path / evaluation.FILE).read_text()) == figures
  for name, picture in pictures.items():
    file = tmp_path / f"evaluation_{name}.png"
    np.testing.assert_array_equal(Image.open(file), picture)
  again = moments.load(tmp_path / evaluation.REFERENCE_FILE, 3)
  np.testing.assert_array_equal(again.covariance, found.covariance)
  table = evaluation.table(figures)
  assert capsys.readouterr().out.startswith(f"{table}\nWritten to {tmp_path}")


def test_without_moments_there_is_no_file_of_them(tmp_path):
  figures = {"protocol": {"network": None}, "sets": {}}
  evaluation.write(evaluation.Result(figures, {}, None), tmp_path)
  assert [file.name for file in tmp_path.iterdir()] == [evaluation.FILE]


def test_figures_of_another_protocol_are_kept(tmp_path, capsys):
  results = [
    evaluation.Result(
      {"protocol": {"network": None, "langevin": (steps,)}, "sets": {}},
      {},
      None,
    )
    for steps in (1, 2, 3)
  ]
  for result in (results[0], results[0], *results):
    evaluation.save(result, tmp_path)
  names = sorted(file.name for file in tmp_path.iterdir())
  assert names == ["evaluation.json", "evaluation_1.json", "evaluation_2.json"]
  steps = [
    json.loads((tmp_path / name).read_text())["protocol"]["langevin"]
    for name in names
  ]
  assert steps == [[3], [1], [2]]
  assert capsys.readouterr().out.count("are kept in") == 2
  # A file that is no JSON holds no figures, and is replaced.
  (tmp_path / evaluation.FILE).write_text("{")
  evaluation.save(results[0], tmp_path)
  assert len(list(tmp_path.iterdir())) == 3
