"""Checks the benchmark's arithmetic by hand."""

import pytest
import tiny

from hatebm_jax import flops
from hatebm_jax.benchmark import results

LENGTHS = {"step": (2, 12), "joint": (2, 6)}
RATES = [100.0, 10.0, 60.0]


def times(seconds):
  return {
    "step_short": 1.0,
    "step_long": 1.0 + seconds,
    "joint_short": 2.0,
    "joint_long": 2.0 + 2 * seconds,
    "hat_update": 0.5,
    "generator_update": 0.25,
  }


def summary(**forms):
  config = tiny.config(langevin__num_steps=12)
  rates = RATES[: len(next(iter(forms.values())))]
  return results.summary(config, LENGTHS, rates, forms)


def test_parts_of_a_round():
  # A Langevin step takes 5 s / (12 - 2) steps, a joint one 10 s / (6 - 2).
  assert results.parts(times(5.0), LENGTHS) == {
    "Langevin step, synthesis": 0.5,
    "Langevin step, joint": 2.5,
    "hat update": 0.5,
    "generator update": 0.25,
    "both updates": 0.75,
    "training step": 6.0,
  }


def test_rows_are_medians_over_rounds():
  config = tiny.config(langevin__num_steps=12)
  rounds = [times(1.0), times(3.0), times(2.0)]
  work = summary(packed=rounds, literal=[times(8.0)])["work"]
  # A Langevin step takes 0.1, 0.3 and 0.2 seconds.
  step = work["Langevin step, synthesis"]
  assert step["seconds"] == pytest.approx(0.2)
  assert step["literal_seconds"] == pytest.approx(0.8)
  assert step["speedup"] == pytest.approx(4.0)
  floor = flops.langevin_step(config) / 1e9
  assert step["floor_gflop"] == step["minimal_gflop"] == pytest.approx(floor)
  # The rounds have 100 x 0.1, 10 x 0.3 and 60 x 0.2 GFLOP: the median is 10.
  assert step["over_floor"] == pytest.approx(10 / floor)
  joint = work["Langevin step, joint"]
  assert joint["seconds"] == pytest.approx(1.0)
  assert joint["minimal_gflop"] < joint["floor_gflop"]
  assert work["both updates"]["seconds"] == pytest.approx(0.75)
  assert work["training step"]["seconds"] == pytest.approx(3.0)


def test_the_literal_form_is_left_out():
  rounds = [times(1.0), times(3.0), times(2.0)]
  work = summary(packed=rounds, strided=rounds)["work"]
  assert {row["speedup"] for row in work.values()} == {None}
  assert {row["literal_seconds"] for row in work.values()} == {None}


def test_the_literal_form_is_the_main_one():
  found = summary(literal=[times(1.0), times(3.0), times(2.0)])
  assert found["main_form"] == "literal"
  for row in found["work"].values():
    assert row["literal_seconds"] == row["seconds"]
    assert row["speedup"] == 1.0


def test_all_forms_have_medians_over_their_own_rounds():
  found = summary(
    packed=[times(1.0), times(3.0), times(2.0)],
    strided=[times(4.0), times(2.0), times(9.0)],
    literal=[times(8.0)],
  )
  assert found["main_form"] == "packed"
  assert found["form_rounds"] == {"packed": 3, "strided": 3, "literal": 1}
  assert {k: v["training step"] for k, v in found["forms"].items()} == {
    "packed": 3.0,
    "strided": 5.0,
    "literal": 9.0,
  }
  for name, row in found["work"].items():
    assert row["seconds"] == found["forms"]["packed"][name]
    assert row["literal_seconds"] == found["forms"]["literal"][name]


def advice(conv_form, main, **seconds):
  forms = {form: {"training step": value} for form, value in seconds.items()}
  config = {"model": {"conv_form": conv_form}}
  return results.advice({"forms": forms, "main_form": main, "config": config})


def test_the_form_of_auto_is_the_fastest():
  text = advice("auto", "packed", packed=2.0, strided=3.0, literal=9.0)
  assert text == "fastest here: packed; `auto` takes packed"


def test_another_form_is_clearly_faster():
  text = advice("auto", "packed", packed=2.0, strided=1.5, literal=9.0)
  assert text == (
    "fastest here: strided, with 0.75 times the training step of packed; "
    "`auto` takes packed; set --config.model.conv_form=strided to change it"
  )


def test_a_small_difference_is_no_reason_to_change():
  text = advice("auto", "packed", packed=2.0, dense=1.92)
  assert text == (
    "fastest here: dense, with 0.96 times the training step of packed; "
    "`auto` takes packed"
  )


def test_the_config_has_chosen_the_form():
  text = advice("dense", "dense", dense=2.0, packed=1.0)
  assert text == (
    "fastest here: packed, with 0.50 times the training step of dense; "
    "the config takes dense; set --config.model.conv_form=packed to change it"
  )


def result(**forms):
  """Returns what `measure` returns, with given times."""
  found = summary(**forms)
  kinds = ["fast", *list(forms)[1:]]
  return {
    "config": tiny.config().to_dict(),
    "machine": {"devices": 1, "device_kind": "cpu", "jax": "0"},
    "rounds": 3,
    "matrix_product_gflops": 60.0,
    "compile_seconds": dict.fromkeys(kinds, 2.5),
    "training_step_bytes": dict.fromkeys(kinds, 2**30),
    "process_peak_bytes": 2**31,
    **found,
  }


def test_the_table_marks_the_fastest_form_of_each_row():
  quick_updates = times(8.0) | {"hat_update": 0.125}
  lines = results.table(
    result(packed=[times(1.0), times(3.0), times(2.0)], literal=[quick_updates])
  ).splitlines()
  (head,) = [i for i, x in enumerate(lines) if x.startswith("seconds in each")]
  assert lines[head].split()[-3:] == ["form", "packed", "literal"]
  assert [line.split()[-2:] for line in lines[head + 1 : head + 7]] == [
    ["0.2000*", "0.8000"],
    ["1.0000*", "4.0000"],
    ["0.5000", "0.1250*"],
    ["0.2500*", "0.2500"],
    ["0.7500", "0.3750*"],
    ["3.0000*", "9.0000"],
  ]
  assert lines[head + 8] == (
    "Timed in the first round only, because it took over twice that of packed: "
    "literal."
  )
  assert [
    x.split(":")[0] for x in lines if x.startswith("training step, ")
  ] == [
    "training step, packed",
    "training step, literal",
  ]
  assert lines[-1] == "fastest here: packed; `auto` takes packed"


def test_no_form_is_the_fastest_if_noise_hides_a_step():
  text = results.table(result(packed=[times(-0.5)], literal=[times(8.0)]))
  rows = [x for x in text.splitlines() if x.startswith("Langevin step, synth")]
  assert rows[1].split()[-2:] == ["-0.0500", "0.8000"]


def test_a_table_of_one_form_compares_nothing():
  text = results.table(result(packed=[times(1.0), times(3.0), times(2.0)]))
  assert "seconds in each form" not in text and "fastest" not in text
  (row,) = [x for x in text.splitlines() if x.startswith("both updates")]
  assert row.split()[2:5] == ["0.7500", "-", "-"]
