"""Tests the paper's tables, with published rows beside ours."""

import importlib
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tiny

from experiments import ddls_search, departures, published, tables
from experiments.paper import rows
from experiments.table_ood import table as ood
from experiments.table_refinement import table as refinement
from experiments.table_retrofit import table as retrofit
from experiments.table_synthesis import table as synthesis
from hatebm_jax import config as config_lib
from hatebm_jax import errors, evaluation, sample, train
from hatebm_jax.run import divergence, files, workdir

_ROOT = pathlib.Path(__file__).parents[2]


def distance(mean, std=None):
  return {"mean": mean, "std": std, "values": [mean]}


def chain(**changes):
  """Returns the chains of the paper's refinement on CIFAR-10."""
  return {
    "num_steps": 350,
    "step_size_y": 1e-4,
    "step_size_z": 5e-3,
    "temperature": 1e-3,
    "tau": 8.0,
    "max_drift_y": None,
    "update_z": True,
    "noise": True,
    **changes,
  }


def protocol(**changes):
  """Returns a protocol as evaluation.json has it, the paper's by default."""
  return {
    "checkpoint_step": 25_000,
    "weights": "raw",
    "seed": 0,
    "langevin": chain(),
    "init_scale_z": 1.0,
    "init_scale_y": 0.0,
    "dtype": "float32",
    "config_changes": None,
    "num_images": 49_920,
    "repeats": 1,
    "statistics": None,
    "data": "tfds:cifar10",
    "split": "train",
    "source": "tfds:cifar10 train",
    "split_images": 50_000,
    "num_reference": 49_920,
    "references": "the same in each repeat",
    "decoder": "Pillow 13.0.0, libjpeg 3.2.0",
    "network": "FID",
    "network_sha256": published.INCEPTION,
    "hatebm_jax": "0.1.0",
    "jax": "0.10.2",
    "device": "tpu",
    **changes,
  }


def write_run(path, config_name, sets, protocol, ood=None, **overrides):
  """Writes the workdir that a run and its evaluation leave."""
  config = importlib.import_module(
    f"hatebm_jax.configs.{config_name}"
  ).get_config()
  for name, value in overrides.items():
    group, field = name.split("__")
    config[group][field] = value
  workdir.claim(path, config, write=True)
  evaluation = {"protocol": protocol, "sets": sets}
  evaluation |= {"ood": ood} if ood else {}
  (path / "evaluation.json").write_text(json.dumps(evaluation))
  return path


def lines_of(table, *arguments):
  return table.make(tables.read_runs(arguments)).splitlines()


def note_of(number, lines):
  """Returns the footnote of a number."""
  (found,) = [line for line in lines if line.startswith(f"[^{number}]: ")]
  return found


def test_without_runs_the_published_rows_stand_alone():
  lines = lines_of(refinement)
  assert lines[:8] == [
    "| model | source | CIFAR-10 | CelebA 64 |",
    "| --- | --- | --- | --- |",
    "| SN-GAN (start) | cited (Hill et al. 2022) | FID 18.58 ± 0.08 "
    "| FID 6.13 ± 0.03 |",
    "| SN-GAN of torch-mimicry | cited (Lee and Town 2020) | FID 16.77 "
    "| FID 5.71 |",
    "| DDLS | cited (Hill et al. 2022) | FID 14.59 ± 0.07 | FID 6.06 ± 0.01 |",
    "| DDLS | measured here | not measured [^1] | not measured [^2] |",
    "| Hat EBM | cited (Hill et al. 2022) | FID 14.04 ± 0.11 "
    "| FID 5.98 ± 0.02 |",
    "",
  ]
  assert note_of(2, lines) == (
    "[^2]: Train the SN-GAN: `python -m hatebm_jax.main "
    "--config=configs/celeba64_sngan.py --workdir=runs/celeba64_sngan`. Choose "
    "the steps N and the step size EPS: `python -m experiments.ddls_search "
    "--workdir=runs/celeba64_sngan --out=runs/celeba64_sngan/ddls.json "
    "--config.metrics.inception=inception.pth`. Measure: `python -m "
    "hatebm_jax.main --workdir=runs/celeba64_sngan --mode=evaluate "
    "--config.metrics.protocol=paper --config.metrics.inception=inception.pth "
    "--config.ddls.num_steps=N --config.ddls.step_size=EPS`. Then name "
    "`celeba64=runs/celeba64_sngan` for this table too."
  )
  assert lines_of(retrofit)[2:] == [
    "| Hat EBM | cited (Hill et al. 2022) | FID 26.01 |"
  ]
  lines = lines_of(synthesis)
  assert len(lines) == 2 + 14
  assert lines[2] == (
    "| Hat EBM | cited (Hill et al. 2022) | FID 19.30 ± 0.15 "
    "| FID 11.57 ± 0.04 | FID 40.24 ± 0.18 | FID 29.37 ± 0.15 |"
  )
  assert lines[8] == (
    "| JEM | cited (Grathwohl et al. 2020) | FID 38.4 | - | - | - |"
  )
  # Nobody else has published the SN-GANs that the paper measured.
  assert [x for x in lines if "| SN-GAN" in x] == [
    "| SN-GAN | cited (Hill et al. 2022) | FID 18.6 | FID 6.1 | - | - |",
    "| SN-GAN of torch-mimicry | cited (Lee and Town 2020) | FID 16.77 "
    "| FID 5.71 | FID 65.7 | - |",
  ]


def test_refinement_at_full_size_and_on_digits(tmp_path):
  sets = {
    "hat": {"num_images": 49_920, "frechet_distance": distance(14.321, 0.104)},
    "generator": {"num_images": 49_920, "frechet_distance": distance(18.5, 0)},
  }
  full = write_run(
    tmp_path / "full",
    "cifar10_refine",
    sets,
    protocol(repeats=3, references="new in each repeat"),
    generator__source="runs/gen.npz",
  )
  sets = {
    "hat": {"num_images": 1000, "frechet_distance": distance(15.72, 3.16)},
    "generator": {"num_images": 1000, "frechet_distance": distance(70.3)},
    "held_out": {"num_images": 360, "frechet_distance": distance(6.42)},
  }
  small = write_run(
    tmp_path / "small",
    "digits_refine",
    sets,
    protocol(
      num_images=1000,
      network="FD-digits",
      data="digits",
      num_reference=1437,
      checkpoint_step=700,
      weights="averaged",
      langevin=chain(num_steps=20, temperature=1e-6),
      device="cpu",
    ),
    generator__source="runs/digits_sngan",
  )
  lines = lines_of(refinement, f"digits={small}", f"cifar10={full}")
  assert "[^5]: Train the SN-GAN: " in lines[-1]
  assert "paper" not in lines[-1]  # It is no experiment of the paper.
  assert lines[:13] == [
    "| model | source | CIFAR-10 | CelebA 64 | digits |",
    "| --- | --- | --- | --- | --- |",
    "| SN-GAN (start) | cited (Hill et al. 2022) | FID 18.58 ± 0.08 "
    "| FID 6.13 ± 0.03 | - |",
    "| SN-GAN (start) | measured here | FID 18.50 ± 0.00 [^2] | - "
    "| FD-digits 70.3 [^1] |",
    "| SN-GAN of torch-mimicry | cited (Lee and Town 2020) | FID 16.77 "
    "| FID 5.71 | - |",
    "| DDLS | cited (Hill et al. 2022) | FID 14.59 ± 0.07 | FID 6.06 ± 0.01 "
    "| - |",
    "| DDLS | measured here | not measured [^3] | not measured [^4] "
    "| not measured [^5] |",
    "| Hat EBM | cited (Hill et al. 2022) | FID 14.04 ± 0.11 "
    "| FID 5.98 ± 0.02 | - |",
    "| Hat EBM | measured here | FID 14.32 ± 0.10 [^2] | - "
    "| FD-digits 15.7 ± 3.2 [^1] |",
    "",
    f"[^1]: `{small}`: 1,000 images, against 1,437 of digits train; averaged "
    "weights of step 700; width 32; 20 Langevin steps at temperature 1e-06; "
    "generator of runs/digits_sngan; seed 0; hatebm_jax 0.1.0, jax 0.10.2, "
    "cpu. 360 held-out images: FD-digits 6.4. Not an experiment of the paper: "
    "nothing to compare with.",
    "",
    f"[^2]: `{full}`: 49,920 images, 3 times with other keys (mean ± std), "
    "against 49,920 of tfds:cifar10 train; raw weights of step 25,000; width "
    "256; 350 Langevin steps at temperature 0.001; generator of "
    "runs/gen.npz; seed 0; hatebm_jax 0.1.0, jax 0.10.2, tpu. The paper's hat "
    "is on its own SN-GAN (FID 18.58, batch-norm epsilon 0.001); whether "
    "runs/gen.npz is that is not known. As the paper's protocol asks, as far "
    "as it is known.",
  ]


def test_what_departs_from_the_protocol_is_not_comparable(tmp_path):
  figures = {"frechet_distance": distance(1.2204)}
  path = write_run(
    tmp_path,
    "cifar10_refine",
    {"hat": figures, "generator": figures},
    protocol(
      num_images=1000,
      network="FD-ResNet10",
      data="folder:images",
      checkpoint_step=200,
      statistics={"file": "moments.npz", "sha256": "0"},
      split=None,
      num_reference=None,
      langevin=chain(num_steps=20, temperature=1e-6),
    ),
    model__width=32,
    train__batch_size=16,
    generator__source="runs/sngan",
  )
  lines = lines_of(refinement, f"cifar10={path}")
  assert "| FD-ResNet10 1.220 [^1] |" in lines[3]
  note = note_of(1, lines)
  assert "1,000 images, against the moments in moments.npz; raw" in note
  assert note.endswith(
    "**Not comparable with the cited figures**: the paper's protocol asks for "
    "images 49,920 (found 1,000), reference images 49,920 (found none), "
    "measure FID (found FD-ResNet10), data tfds:cifar10 (found "
    "folder:images), split train (found none), training steps 25,000 (found "
    "200), generator its own SN-GAN (FID 18.58, batch-norm epsilon 0.001) "
    "(found that of runs/sngan), train.batch_size 128 (found 16), model.width "
    "256 (found 32), evaluate.num_steps 350 (found 20), evaluate.temperature "
    "0.001 (found 1e-06)."
  )


@pytest.mark.parametrize(
  ("departure", "record", "overrides"),
  [
    # Each of these passed as the paper's protocol before fields were compared.
    (
      "generator.out_factor 1.0 (found 2.0)",
      {},
      {"generator__out_factor": 2.0},
    ),
    (
      "generator.norm_epsilon 0.001 (found 1e-05)",
      {},
      {"generator__norm_epsilon": 1e-5},
    ),
    (
      "evaluate.temperature 0.001 (found 1e-08)",
      {"langevin": chain(temperature=1e-8)},
      {},
    ),
    (
      "langevin.temperature 0.001 (found 1e-08)",
      {},
      {"langevin__temperature": 1e-8},
    ),
    ("split train (found test)", {"split": "test"}, {}),
    ("evaluate.tau 8.0 (found 0.0)", {"langevin": chain(tau=0.0)}, {}),
    ("images 49,920 (found 50,000)", {"num_images": 50_000}, {}),
    ("reference images 49,920 (found 50,000)", {"num_reference": 50_000}, {}),
    ("evaluate.init_scale_y 0.0 (found 0.01)", {"init_scale_y": 0.01}, {}),
    (
      "evaluate.max_drift_y none (found 2.5)",
      {"langevin": chain(max_drift_y=2.5)},
      {},
    ),
    (
      "evaluate.step_size_z 0.005 (found 0.001)",
      {"langevin": chain(step_size_z=1e-3)},
      {},
    ),
    (
      "hat.learning_rate 1e-05 (found 0.0001)",
      {},
      {"hat__learning_rate": 1e-4},
    ),
    ("hat.data_epsilon 0.001 (found 0.01)", {}, {"hat__data_epsilon": 1e-2}),
    (
      "langevin.num_steps 250 (found 200)",
      {},
      {"langevin__num_steps": 200},
    ),
    ("model.dtype float32 (found bfloat16)", {}, {"model__dtype": "bfloat16"}),
    (
      "precision of samples float32 (found bfloat16)",
      {"dtype": "bfloat16"},
      {},
    ),
    (
      "SHA-256 of Inception 6726825d... (found aaaaaaaa...)",
      {"network_sha256": 64 * "a"},
      {},
    ),
    ("weights raw (found averaged)", {"weights": "averaged"}, {}),
    (
      "references new in each repeat (found the same in each repeat)",
      {"repeats": 3},
      {},
    ),
    (
      "changes during training none (found hat.learning_rate 1e-05 to 1e-06 at "
      "step 100)",
      {
        "config_changes": [
          {"step": 100, "field": "hat.learning_rate", "from": 1e-5, "to": 1e-6}
        ]
      },
      {},
    ),
  ],
)
def test_one_departure_is_named_and_nothing_else(
  departure, record, overrides, tmp_path
):
  figures = {"frechet_distance": distance(14.1)}
  path = write_run(
    tmp_path,
    "cifar10_refine",
    {"hat": figures, "generator": figures},
    protocol(**record),
    generator__source="gen.npz",
    **overrides,
  )
  note = note_of(1, lines_of(refinement, f"cifar10={path}"))
  assert note.endswith(
    "**Not comparable with the cited figures**: the paper's protocol asks for "
    f"{departure}."
  )


def ddls_run(path, config_name, record, **overrides):
  """Writes an SN-GAN's workdir that was evaluated with DDLS."""
  record = protocol(
    langevin=None,
    init_scale_y=None,
    ddls={"num_steps": 80, "step_size": 0.1},
    **record,
  )
  sets = {
    "ddls": {"num_images": 1000, "frechet_distance": distance(15.5)},
    "generator": {"num_images": 1000, "frechet_distance": distance(18.5)},
  }
  return write_run(path, config_name, sets, record, **overrides)


def test_ddls_has_a_row_on_the_sngan_of_its_column(tmp_path):
  path = ddls_run(
    tmp_path / "full",
    "cifar10_sngan",
    {"checkpoint_step": 100_000},
    train__batch_size=32,
  )
  figures = {"frechet_distance": distance(14.1)}
  joint = write_run(
    tmp_path / "joint",
    "cifar10_refine",
    {"hat": figures, "generator": figures},
    protocol(),
    generator__source="gen.npz",
  )
  lines = lines_of(refinement, f"cifar10={path}")
  assert lines[3] == ("| SN-GAN (start) | measured here | FID 18.50 [^1] | - |")
  assert lines[6] == (
    "| DDLS | measured here | FID 15.50 [^1] | not measured [^2] |"
  )
  assert note_of(1, lines) == (
    f"[^1]: `{path}`: 49,920 images, against 49,920 of tfds:cifar10 train; raw "
    "weights of step 100,000; width 256; 80 steps of DDLS of step size 0.1; "
    "seed 0; hatebm_jax 0.1.0, jax 0.10.2, tpu. The paper does not give the "
    "steps and the step size of its DDLS. **Not comparable with the cited "
    "figures**: the paper's protocol asks for SN-GAN its own SN-GAN (FID "
    f"18.58, batch-norm epsilon 0.001) (found that of {path}), "
    "train.batch_size 64 (found 32)."
  )
  # A refinement has measured the same SN-GAN.
  both = lines_of(refinement, f"cifar10={joint}", f"cifar10={path}")
  assert both[0] == "| model | source | CIFAR-10 | CelebA 64 |"
  assert both[3] == "| SN-GAN (start) | measured here | FID 14.10 [^1] | - |"
  assert both[6] == (
    "| DDLS | measured here | FID 15.50 [^2] | not measured [^3] |"
  )
  assert both[8] == "| Hat EBM | measured here | FID 14.10 [^1] | - |"


def test_digits_share_a_column_with_their_ddls(tmp_path):
  record = {"network": "FD-digits", "data": "digits", "num_reference": 1437}
  path = ddls_run(tmp_path, "digits_sngan", record)
  lines = lines_of(refinement, f"digits={path}")
  assert lines[0] == "| model | source | CIFAR-10 | CelebA 64 | digits |"
  assert "| FD-digits 15.5 [^1] |" in lines[6]
  assert note_of(1, lines).endswith("nothing to compare with.")
  with pytest.raises(errors.ConfigError, match="expected one run for each"):
    lines_of(refinement, f"digits={path}", f"digits={path}")


def test_an_sngan_without_ddls_is_told_what_to_do(tmp_path):
  path = write_run(
    tmp_path, "digits_sngan", {}, protocol(langevin=None, init_scale_y=None)
  )
  with pytest.raises(workdir.WorkdirError, match=r"config.ddls.num_steps=N"):
    tables.read_runs([f"digits={path}"])


def test_a_search_is_a_table_of_its_pairs():
  points = [
    {"num_steps": n, "step_size": e, "frechet_distance": d}
    for n, e, d in [
      *((0, 0.0, 70.3), (20, 0.1, 68.5), (20, 0.3, 69.0)),
      *((40, 0.1, 66.1), (40, 0.3, 80.2)),
    ]
  ]
  found = {
    "protocol": {"network": "FD-digits", "num_images": 500},
    "points": points,
    "best": points[3],
  }
  assert ddls_search.table(found).splitlines() == [
    "| FD-digits | eps 0.1 | eps 0.3 |",
    "|---|---|---|",
    "| 20 steps | 68.5 | 69.0 |",
    "| 40 steps | 66.1 | 80.2 |",
    "",
    "The generator alone has 70.3. Each figure is of 500 images. The best: "
    "--config.ddls.num_steps=40 --config.ddls.step_size=0.1",
  ]


def test_what_a_run_went_through_is_a_departure(tmp_path):
  figures = {"frechet_distance": distance(14.1)}
  path = write_run(
    tmp_path,
    "celeba64",
    {"hat": figures, "generator": figures},
    protocol(
      checkpoint_step=50_000,
      data="tfds:celeb_a",
      split_images=162_770,
      init_scale_y=0.01,
      langevin=chain(
        num_steps=100,
        step_size_y=5e-4,
        step_size_z=0.0,
        temperature=1e-8,
        tau=0.0,
        update_z=False,
      ),
    ),
    hat__learning_rate=1e-6,
  )
  found = divergence.Divergence(300, "max_clip_rate", 1.0)
  divergence.record(path, found, 200)
  # The newest value is that of training after the checkpoint.
  entry = {"step": 60_000, "field": "hat.learning_rate"}
  files.write_json(
    path / "config_changes.json", [entry | {"from": 1e-4, "to": 1e-6}]
  )
  note = lines_of(synthesis, f"celeba64={path}")[-1]
  assert note.endswith(
    "asks for JPEG decoder fast integer DCT (found Pillow 13.0.0, libjpeg "
    "3.2.0), rollbacks 0 (found 1)."
  )


def test_celeba_from_a_folder_is_the_same_data_if_it_is_the_train_split():
  config = importlib.import_module("hatebm_jax.configs.celeba64").get_config()
  column = published.SYNTHESIS.columns["celeba64"]
  found = protocol(
    checkpoint_step=50_000,
    data="folder:celeba",
    source="folder:celeba, CelebA train",
    split_images=162_770,
    decoder="simplejpeg 1.9.0, fast integer DCT",
  )
  assert departures.of_figures(found, config, column) == {}
  # All images of the folder are another split, and other data.
  found |= {"source": "folder:celeba", "split_images": 202_599}
  assert departures.text(departures.of_figures(found, config, column)) == (
    "data tfds:celeb_a (found folder:celeba), images of the split 162,770 "
    "(found 202,599)"
  )


def test_the_doubt_about_the_published_temperature_is_told(tmp_path):
  figures = {"frechet_distance": distance(19.3)}
  path = write_run(
    tmp_path, "cifar10", {"hat": figures, "generator": figures}, protocol()
  )
  note = lines_of(synthesis, f"cifar10={path}")[-1]
  assert "evaluate.temperature 1e-08 (found 0.001)" in note
  assert note.endswith(published.SYNTHESIS.columns["cifar10"].note)


def score(value):
  return {"auroc": {"value": value, "low": value - 0.01, "high": value + 0.01}}


def test_ood_beside_what_needs_no_model(tmp_path):
  scores = {"energy": score(0.9), "png_size": score(0.75)}
  found = {"num_in": 1000, "num_out": 900, "resized_to": 32, "scores": scores}
  path = write_run(
    tmp_path,
    "cifar10",
    {},
    protocol(),
    ood={
      "in_distribution": "tfds:cifar10 test",
      "sets": {"tfds:svhn_cropped test": found, "folder:faces test": found},
    },
  )
  lines = lines_of(ood, f"ours={path}")
  assert lines[:5] == [
    "| model | source | SVHN | CIFAR-100 | CelebA | folder:faces test |",
    "| --- | --- | --- | --- | --- | --- |",
    "| Hat EBM, energy | cited (Hill et al. 2022) [^1] | AUROC 0.92 "
    "| AUROC 0.87 | AUROC 0.94 | - |",
    "| ours: energy | measured here | AUROC 0.900 [0.890, 0.910] [^2] | - "
    "| - | AUROC 0.900 [0.890, 0.910] [^2] |",
    "| ours: png size | measured here | AUROC 0.750 [0.740, 0.760] [^2] | - "
    "| - | AUROC 0.750 [0.740, 0.760] [^2] |",
  ]
  assert lines[6] == f"[^1]: {published.OOD_NOTE}"
  assert "SVHN: 1,000 in, 900 out, both at 32 pixels;" in lines[8]
  assert "JPEGs" not in lines[8]
  assert lines[8].endswith(published.OOD_NOTE)
  assert (
    "the paper's training asks for training steps 50,000 (found 25,000)."
    in lines[8]
  )
  path = write_run(
    tmp_path / "digits",
    "digits",
    {},
    protocol(data="digits"),
    ood={
      "in_distribution": "digits test",
      "jpeg_quality": 75,
      "sets": {"folder:x test": found},
    },
  )
  (note,) = lines_of(ood, f"digits={path}")[-1:]
  assert "both at 32 pixels, both as JPEGs of quality 75. In" in note
  assert note.endswith(
    "Not an experiment of the paper: nothing to compare with."
  )


def test_runs_that_cannot_stand_in_the_table(tmp_path):
  with pytest.raises(errors.ConfigError, match="expected LABEL=WORKDIR"):
    tables.read_runs(["runs/digits"])
  with pytest.raises(workdir.WorkdirError, match="holds no run"):
    tables.read_runs([f"digits={tmp_path}"])
  path = write_run(tmp_path / "run", "digits", {"hat": {}}, protocol())
  with pytest.raises(errors.ConfigError, match="one run for each label"):
    tables.read_runs([f"digits={path}", f"digits={path}"])
  runs = tables.read_runs([f"digits={path}"])
  with pytest.raises(
    workdir.WorkdirError, match="expected a Frechet distance of 'hat'"
  ):
    synthesis.make(runs)
  with pytest.raises(errors.ConfigError, match=r"a refinement.*'synthesis'"):
    refinement.make(runs)
  with pytest.raises(workdir.WorkdirError, match=r"--config\.ood\.sets="):
    ood.make(runs)
  (path / "evaluation.json").write_text('{"checkpoint_step": 4}')
  with pytest.raises(workdir.WorkdirError, match=r"older version.*--mode=eval"):
    tables.read_runs([f"digits={path}"])
  write_run(path, "digits", {"samples": {}}, protocol(langevin=None))
  with pytest.raises(workdir.WorkdirError, match="the run's chains drew"):
    tables.read_runs([f"digits={path}"])
  path = write_run(tmp_path / "joint", "digits_refine", {}, protocol())
  with pytest.raises(errors.ConfigError, match="expected a retrofit"):
    retrofit.make(tables.read_runs([f"digits={path}"]))


def test_a_run_that_was_not_evaluated_is_one_line(tmp_path):
  workdir.claim(
    tmp_path,
    importlib.import_module("hatebm_jax.configs.digits").get_config(),
    write=True,
  )
  command = ["-m", "experiments.table_synthesis.table", f"digits={tmp_path}"]
  done = subprocess.run(
    [sys.executable, *command], capture_output=True, text=True, cwd=_ROOT
  )
  assert done.returncode == 1 and not done.stdout
  assert done.stderr == (
    f"error: {tmp_path} holds no evaluation.json: expected a run that was "
    "evaluated. Evaluate it with: python -m hatebm_jax.main --mode=evaluate "
    f"--config=configs/NAME.py --workdir={tmp_path}\n"
  )


def trained(name, path, **overrides):
  """Trains and evaluates a tiny digits run, and returns its workdir."""
  tiny_settings = {
    "train__num_steps": 2,
    "train__image_every": 100,
    "evaluate__num_steps": 3,
    "chains__num_chains": 0,
    **overrides,
  }
  config = tiny.config(name, **tiny_settings)
  assert train.train(config, path) is None
  restored = sample.restore(config, path)
  evaluation.write(evaluation.evaluate(restored), path)
  return path


def distance_of(path, name):
  evaluation = json.loads((path / "evaluation.json").read_text())
  mean = evaluation["sets"][name]["frechet_distance"]["mean"]
  return f"FD-digits {mean:.1f} [^1]"


def rows_of(table, *arguments):
  """Returns the cells of measured rows by model, and the footnotes."""
  found = lines_of(table, *arguments)
  lines = [line for line in found if line.startswith("|")]
  cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
  notes = "\n".join(line for line in found if line.startswith("[^"))
  return {row[0]: row[2:] for row in cells if "measured here" in row}, notes


@pytest.mark.slow
def test_tables_of_a_real_digits_run(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
  for i, image in enumerate(noise):
    files.write_png(tmp_path / "noise" / f"{i}.png", image)
  source = f"folder:{tmp_path / 'noise'}"
  path = trained(
    "digits",
    tmp_path / "run",
    metrics__repeats=2,
    ood__sets=(source,),
    ood__bootstraps=20,
  )
  rows, note = rows_of(synthesis, f"digits={path}")
  assert list(rows) == ["Hat EBM", "Hat EBM, its generator alone"]
  for cells in rows.values():
    assert cells[:4] == ["-"] * 4
    assert re.fullmatch(r"FD-digits \d+\.\d ± \d+\.\d \[\^1\]", cells[4])
  assert "12 images, 2 times with other keys (mean ± std), against" in note
  assert "raw weights of step 2; width 8; 3 Langevin steps" in note
  assert "360 held-out images: FD-digits 6.4." in note
  rows, note = rows_of(ood, f"digits={path}")
  assert set(rows) == {
    f"digits: {score}"
    for score in (
      "energy",
      "gradient norm",
      "drift",
      "brightness",
      "contrast",
      "total variation",
      "png size",
    )
  }
  # Noise is not smooth, so that a score without a model tells it from digits.
  value = re.fullmatch(
    r"AUROC (\S+) \[.*\] \[\^2\]", rows["digits: total variation"][-1]
  )
  assert float(value[1]) > 0.99
  assert "in distribution: digits test" in note


@pytest.mark.slow
@pytest.mark.parametrize(
  ("table", "source", "name", "models"),
  [
    (refinement, "sngan", "refine", ["SN-GAN (start)", "DDLS", "Hat EBM"]),
    (
      retrofit,
      "autoencoder",
      "retrofit",
      ["Hat EBM", "decoder alone, z ~ N(0, I)"],
    ),
  ],
  ids=["refinement", "retrofit"],
)
def test_tables_of_real_joint_runs(table, source, name, models, tmp_path):
  first = trained(f"digits_{source}", tmp_path / "first")
  path = trained(
    f"digits_{name}", tmp_path / "joint", generator__source=str(first)
  )
  rows, note = rows_of(table, f"digits={path}")
  assert list(rows) == models
  hat, alone = distance_of(path, "hat"), distance_of(path, "generator")
  assert rows["Hat EBM"][-1] == hat and alone in (
    row[-1] for row in rows.values()
  )
  assert f"generator of {first}" in note


def commands(readme):
  """Returns the words of each `python -m` command in a README's bash blocks."""
  blocks = re.findall(r"^```bash\n(.*?)^```", readme, re.M | re.S)
  lines = "".join(blocks).replace("\\\n", " ").splitlines()
  return [w for w in map(shlex.split, lines) if w[1:2] == ["-m"]]


@pytest.mark.parametrize("name", ["refinement", "synthesis", "retrofit", "ood"])
def test_commands_of_the_readmes(name):
  folder = _ROOT / "experiments" / f"table_{name}"
  found = commands((folder / "README.md").read_text())
  modules = {command[2] for command in found}
  assert {"experiments.paper", f"experiments.table_{name}.table"} <= modules
  defaults = config_lib.default()
  made = set()
  for _, _, module, *arguments in found:
    assert importlib.util.find_spec(module), module
    for argument in arguments:
      key, _, value = argument.partition("=")
      if key == "--config":
        assert (_ROOT / value).exists(), value
      elif key.startswith("--config."):
        group, field = key.removeprefix("--config.").split(".")
        assert field in defaults[group], key
      elif module == "experiments.paper" and not value:
        made.add(key)
  assert made == {x.name for x in rows.ROWS.values() if x.table == name}
