"""Runs the benchmark, and checks what is timed how often."""

import json
import os
import subprocess
import sys
import time

import child
import pytest
import tiny

from hatebm_jax import benchmark, data, errors
from hatebm_jax.benchmark import programs, timing

FORMS = ["literal", "packed", "strided", "dense"]


def test_what_cannot_be_timed_is_refused():
  with pytest.raises(errors.ConfigError, match=r"langevin\.num_steps=2"):
    benchmark.measure(tiny.config(langevin__num_steps=2))
  config = tiny.config()
  config.objective = "joint"
  with pytest.raises(errors.ConfigError, match="expected a config of synth"):
    benchmark.measure(config)
  with pytest.raises(data.DataError, match="multiple of 8"):
    benchmark.measure(tiny.config(train__batch_size=12))
  with pytest.raises(errors.ConfigError, match="found 'fast'"):
    benchmark.measure(tiny.config(), forms=["literal", "fast"])


@pytest.mark.parametrize(
  ("conv_form", "forms", "platform", "chosen"),
  [
    ("auto", FORMS, "cpu", ["packed", "literal", "strided", "dense"]),
    ("auto", FORMS, "gpu", ["strided", "literal", "packed", "dense"]),
    ("auto", FORMS, "tpu", ["dense", "literal", "packed", "strided"]),
    ("literal", FORMS, "cpu", FORMS),
    ("auto", ["auto"], "cpu", ["packed"]),
    ("auto", [], "tpu", ["dense"]),
    ("dense", ["auto"], "gpu", ["dense", "strided"]),
    ("auto", ["dense", "packed", "dense"], "cpu", ["packed", "dense"]),
  ],
)
def test_which_forms_are_timed(conv_form, forms, platform, chosen):
  assert timing.choose_forms(conv_form, forms, platform) == chosen


def test_a_form_is_slow_if_its_first_turn_takes_over_twice_the_main_ones():
  turns = {"packed": [2.0, 9.0], "strided": [4.0, 90.0], "literal": [4.1, 1.0]}
  slow = {form: timing.is_slow(form, turns, "packed") for form in FORMS}
  assert [form for form in FORMS if slow[form]] == ["literal"]


def test_time_left():
  names = ["packed", "literal", "strided"]
  left = lambda turns: timing.seconds_left(turns, names, 5, least=3.0)
  # The main form has 5 turns, each other one counts once.
  assert left({}) == 3.0 * (5 + 1 + 1)
  assert left({"packed": [10.0]}) == 4 * 10.0 + 3.0 * 2
  # The literal form is slow, so its only turn is over.
  turns = {"packed": [10.0], "literal": [90.0]}
  assert left(turns) == 4 * 10.0 + 3.0
  turns["strided"] = [15.0]
  assert left(turns) == 4 * 10.0 + 4 * 15.0
  turns["packed"].append(20.0)
  assert left(turns) == 3 * 15.0 + 4 * 15.0


def program(seconds):
  return {"step": programs.Program(lambda: time.sleep(seconds), 0.0, None)}


def test_slow_forms_have_one_turn_and_others_one_in_each_round(capsys):
  forms = {"main": program(1.0), "slow": program(4.0), "quick": program(0.6)}
  rates, times = timing._time_in_turns(forms, iter([7.0, 8.0]).__next__, 2, 1.0)
  assert rates == [7.0, 8.0]
  assert {k: len(v) for k, v in times.items()} == {
    "main": 2,
    "slow": 1,
    "quick": 2,
  }
  assert times["slow"][0]["step"] >= 4.0 and times["quick"][1]["step"] >= 0.6
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == "round 1 of 2, main; at least 0:00:04 left"
  assert [line.partition(";")[0] for line in lines] == [
    "round 1 of 2, main",
    "round 1 of 2, slow",
    "round 1 of 2, quick",
    "round 2 of 2",
  ]
  assert "; about 0:00:0" in lines[-1]


def command(*arguments):
  """Runs the command on one device and returns what it printed."""
  environment = {**os.environ, "PYTHONPATH": str(child.ROOT)}
  environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=1"
  return subprocess.run(
    [sys.executable, "-m", "hatebm_jax.benchmark", *arguments],
    cwd=child.ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_run_of_the_benchmark(tmp_path):
  file = tmp_path / "result.json"
  finished = command(
    *("--config=digits", "--width=8", "--batch=2", "--rounds=2"),
    *("--forms=auto,literal", "--config.langevin.num_steps=9"),
    *("--config.generator.bank_size=8", f"--json={file}"),
  )
  assert finished.returncode == 0, finished.stderr
  assert "compiling literal, form 2 of 2; about " in finished.stderr
  assert "round 2 of 2; about " in finished.stderr
  result = json.loads(file.read_text())
  # The command leaves the config as it is, in all forms and lengths.
  assert result["config"]["langevin"]["num_steps"] == 9
  assert result["config"]["model"]["conv_form"] == "auto"
  assert result["main_form"] == "packed"
  assert list(result["forms"]) == ["packed", "literal"]
  assert set(result["compile_seconds"]) == {"fast", "literal"}
  assert min(result["training_step_bytes"].values()) > 0
  assert result["matrix_product_gflops"] > 0
  for name, row in result["work"].items():
    assert row["floor_gflop"] >= row["minimal_gflop"] > 0
    assert row["seconds"] == result["forms"]["packed"][name]
    assert row["literal_seconds"] == result["forms"]["literal"][name]
  assert result["work"]["training step"]["seconds"] > 0
  for part in (
    "Langevin step, joint",
    "seconds in each form",
    "`auto` takes packed",
  ):
    assert part in finished.stdout
