"""The results of the benchmark: seconds, floors, and their tables."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from hatebm_jax import flops

# The parts of a run, and the counts of their FLOPs.
_PARTS = {
  "Langevin step, synthesis": (flops.langevin_step,),
  "Langevin step, joint": (functools.partial(flops.langevin_step, joint=True),),
  "hat update": (flops.hat_update,),
  "generator update": (flops.generator_update,),
  "both updates": (flops.hat_update, flops.generator_update),
  "training step": (flops.training_step,),
}

# A form is clearly faster than another one if it takes less than this share of
# its time. A smaller difference may be noise.
_CLEARLY = 0.95


class Row(NamedTuple):
  """A part of a run on the whole batch. Its times are medians over rounds.

  Attributes:
    seconds: Seconds of the main form.
    literal_seconds: Seconds of the literal form; None if it is not timed.
    speedup: Seconds of the literal form over seconds of the main one.
    floor_gflop: GFLOP that the reference's networks need: pooled convolutions
      at a quarter, shortcuts on the small side, up convolutions at full size.
    minimal_gflop: GFLOP of the least arithmetic, that of the packed form: up
      convolutions at a quarter too.
    over_floor: Seconds times the rate of matrix products, over floor_gflop.
    over_minimal: The same over minimal_gflop.
  """

  seconds: float
  literal_seconds: float | None
  speedup: float | None
  floor_gflop: float
  minimal_gflop: float
  over_floor: float
  over_minimal: float


def parts(
  times: Mapping[str, float], lengths: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
  """Returns the seconds of the parts of a run.

  Args:
    times: Seconds of the programs of one form in one round.
    lengths: Langevin steps of the short and the long programs, from
      `programs.lengths`.
  """

  def one_step(name):
    short, long = lengths[name]
    return (times[f"{name}_long"] - times[f"{name}_short"]) / (long - short)

  seconds = (
    one_step("step"),
    one_step("joint"),
    times["hat_update"],
    times["generator_update"],
    times["hat_update"] + times["generator_update"],
    times["step_long"],
  )
  return dict(zip(_PARTS, seconds, strict=True))


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the median seconds of each part over the rounds of a form."""
  return {
    part: statistics.median(times[part] for times in rounds) for part in _PARTS
  }


def summary(
  config: ml_collections.ConfigDict,
  lengths: Mapping[str, tuple[int, int]],
  rates: Sequence[float],
  times: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, Any]:
  """Returns the part of the results that the times decide.

  Args:
    config: Config that was measured.
    lengths: Langevin steps of the short and the long programs.
    rates: Rate of matrix products in each round, GFLOP/s.
    times: Seconds of the programs in each round, by form. The main form is the
      first one.
  """
  rounds = {
    form: [parts(one, lengths) for one in each] for form, each in times.items()
  }
  forms = {form: medians(each) for form, each in rounds.items()}
  main = next(iter(forms))
  work = rows(config, rates, rounds[main], forms.get("literal"))
  return {
    "main_form": main,
    "work": {part: row._asdict() for part, row in work.items()},
    "forms": forms,
    "form_rounds": {form: len(each) for form, each in rounds.items()},
  }


def rows(
  config: ml_collections.ConfigDict,
  rates: Sequence[float],
  rounds: Sequence[Mapping[str, float]],
  literal: Mapping[str, float] | None,
) -> dict[str, Row]:
  """Returns what each part took in the main form and what it needs.

  Args:
    config: Config that was measured.
    rates: Rate of matrix products in each round, GFLOP/s.
    rounds: Seconds of the parts in each round, in the main form.
    literal: Median seconds of the parts in the literal form, if it was timed.
  """
  return {
    part: _row(
      rates,
      [times[part] for times in rounds],
      literal and literal[part],
      sum(count(config, rules=flops.UP_AT_FULL_SIZE) for count in counts) / 1e9,
      sum(count(config, rules=flops.MINIMAL) for count in counts) / 1e9,
    )
    for part, counts in _PARTS.items()
  }


def _row(
  rates: Sequence[float],
  main: Sequence[float],
  literal: float | None,
  floor: float,
  minimal: float,
) -> Row:
  """Returns a row: medians over rounds, each time at the rate of its round."""
  seconds = statistics.median(main)
  cost = statistics.median(
    a * rate for a, rate in zip(main, rates, strict=True)
  )
  return Row(
    seconds=seconds,
    literal_seconds=literal,
    speedup=literal and literal / seconds,
    floor_gflop=floor,
    minimal_gflop=minimal,
    over_floor=cost / floor,
    over_minimal=cost / minimal,
  )


def table(result: Mapping[str, Any]) -> str:
  """Formats the result of `measure` for people."""
  config, machine = result["config"], result["machine"]
  size = config["data"]["image_size"]
  lines = [
    f"{machine['devices']} x {machine['device_kind']}, jax {machine['jax']}, "
    f"{config['model']['dtype']}: "
    f"{result['matrix_product_gflops']:.0f} GFLOP/s in matrix products",
    f"{size} x {size} pixels, width {config['model']['width']}, batch "
    f"{config['train']['batch_size']}, {config['langevin']['num_steps']} "
    f"Langevin steps; medians of {result['rounds']} rounds; floors in GFLOP",
    f"form of the convolutions: {result['main_form']}",
    f"{'':26}{'seconds':>10}{'literal':>10}{'speed-up':>10}"
    f"{'floor':>9}{'x floor':>9}{'minimal':>9}{'x minimal':>11}",
  ]
  for name, row in result["work"].items():
    literal = "         -         -"
    if row["speedup"]:
      literal = f"{row['literal_seconds']:10.4f}{row['speedup']:10.2f}"
    lines.append(
      f"{name:26}{row['seconds']:10.4f}{literal}{row['floor_gflop']:9.3g}"
      f"{row['over_floor']:9.2f}{row['minimal_gflop']:9.3g}"
      f"{row['over_minimal']:11.2f}"
    )
  several = len(result["forms"]) > 1
  lines += _table_of_forms(result) if several else []
  for kind, seconds in result["compile_seconds"].items():
    memory = result["training_step_bytes"][kind] or 0
    form = result["main_form"] if kind == "fast" else kind
    lines.append(
      f"training step, {form}: compiled in {seconds:.1f} s, "
      f"{memory / 2**30:.2f} GiB per device (as its compiler says)"
    )
  peak = result["process_peak_bytes"] / 2**30
  lines.append(f"peak memory of this process or device: {peak:.2f} GiB")
  lines += [advice(result)] if several else []
  return "\n".join(lines)


def _table_of_forms(result: Mapping[str, Any]) -> list[str]:
  """Returns the lines of the table that has a column for each form."""
  forms, main = result["forms"], result["main_form"]
  lines = ["", f"{'seconds in each form':26}"]
  lines[-1] += "".join(f"{name:>11} " for name in forms)
  for part in _PARTS:
    best = fastest(forms, part)
    lines.append(f"{part:26}")
    for name, seconds in forms.items():
      # In a tiny program, noise can hide the time of one more step.
      mark = "*" if name == best and seconds[part] > 0 else " "
      lines[-1] += f"{seconds[part]:11.4f}{mark}"
  lines.append("* This form is the fastest one of the row.")
  turns = result["form_rounds"]
  once = [name for name in forms if turns[name] < result["rounds"]]
  if once:
    lines.append(
      f"Timed in the first round only, because it took over twice that of "
      f"{main}: {', '.join(once)}."
    )
  return [*(line.rstrip() for line in lines), ""]


def fastest(forms: Mapping[str, Mapping[str, float]], part: str) -> str:
  """Returns the name of the form that takes the fewest seconds for a part.

  Args:
    forms: Seconds of the parts in each form.
    part: Name of the part.
  """
  return min(forms, key=lambda name: forms[name][part])


def advice(result: Mapping[str, Any]) -> str:
  """Says which form has the fastest training step, and how to choose it.

  Args:
    result: Result of `measure`.
  """
  forms, main = result["forms"], result["main_form"]
  best = fastest(forms, "training step")
  share = forms[best]["training step"] / forms[main]["training step"]
  automatic = result["config"]["model"]["conv_form"] == "auto"
  text = f"fastest here: {best}"
  if best != main:
    text += f", with {share:.2f} times the training step of {main}"
  text += f"; {'`auto`' if automatic else 'the config'} takes {main}"
  if share < _CLEARLY:
    text += f"; set --config.model.conv_form={best} to change it"
  return text
