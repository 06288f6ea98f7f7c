"""A new metric costs one file: the console, JSON and the report show it."""

import json
import sys

import numpy as np
import pytest
import tiny

from hatebm_jax import data, evaluation, metrics, report
from hatebm_jax.run import workdir

MODULE = '''
"""Mean brightness of the images."""

from hatebm_jax.metrics.metric import Figure

FIGURES = (
  Figure("brightness", "mean brightness", "higher", decimals=2, note="A note."),
)
PROTOCOL = {"brightest": 255}


def figures(sample, reference):
  assert reference.network == "FD-digits"
  return {"brightness": float(sample.images.mean())}
'''


@pytest.mark.slow
def test_one_file_is_all_that_a_metric_needs(tmp_path, monkeypatch, capsys):
  (tmp_path / "added").mkdir()
  (tmp_path / "added" / "brightness.py").write_text(MODULE)
  folders = [*metrics.__path__, str(tmp_path / "added")]
  monkeypatch.setattr(metrics, "__path__", folders)
  digits = data.load_all(data.open_source(tiny.config().data, "test"))
  np.savez(tmp_path / "samples.npz", images=digits[:20])
  config = tiny.config(metrics__samples=str(tmp_path / "samples.npz"))
  path = tmp_path / "run"
  workdir.claim(path, config, write=True)
  try:
    evaluation.write(evaluation.evaluate_file(config), path)
    page = report.make(path)
  finally:
    sys.modules.pop("hatebm_jax.metrics.brightness")
  mean = digits[:20].mean()
  found = json.loads((path / evaluation.FILE).read_text())
  assert found["sets"]["samples"]["brightness"]["values"] == [mean]
  assert found["protocol"]["brightest"] == 255
  lines = capsys.readouterr().out.splitlines()
  assert any("rarest digit" in x and "mean brightness" in x for x in lines)
  row = next(line for line in lines if "given samples" in line)
  assert f"{mean:.2f}" in row
  assert "mean brightness &#8593;" in page and f">{mean:.4g}<" in page
  assert "A note." in page and "brightest" in page
