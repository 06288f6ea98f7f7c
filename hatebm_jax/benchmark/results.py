"""The results of the benchmark: rows of seconds and floors, and their table."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from hatebm_jax import flops


class Row(NamedTuple):
  """A part of a run on the whole batch. Its times are medians over rounds.

  Attributes:
    seconds: Seconds of the fast form.
    literal_seconds: Seconds of the literal form, which is timed once; None if
      it is not timed.
    speedup: Seconds of the literal form over seconds of the fast one.
    floor_gflop: GFLOP that the reference's networks need: pooled convolutions
      at a quarter, shortcuts on the small side, up convolutions at full size.
    minimal_gflop: GFLOP that are run here: up convolutions at a quarter too.
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


def rows(
  config: ml_collections.ConfigDict,
  num_more: int,
  rates: Sequence[float],
  rounds: Sequence[Mapping[str, float]],
  literal: Mapping[str, float] | None,
) -> dict[str, Row]:
  """Returns what each part took and what it needs.

  Args:
    config: Config that was measured.
    num_more: Number of Langevin steps by which the long programs are longer
      than the short ones.
    rates: Rate of matrix products in each round, GFLOP/s.
    rounds: Seconds of the programs in each round.
    literal: Seconds of the literal programs, if they were timed.
  """
  one_step = lambda times, name: (
    (times[f"{name}_long"] - times[f"{name}_short"]) / num_more
  )
  joint = functools.partial(flops.langevin_step, joint=True)
  work = {
    "Langevin step, synthesis": (
      lambda times: one_step(times, "step"),
      [flops.langevin_step],
    ),
    "Langevin step, joint": (lambda times: one_step(times, "joint"), [joint]),
    "hat update": (lambda times: times["hat_update"], [flops.hat_update]),
    "generator update": (
      lambda times: times["generator_update"],
      [flops.generator_update],
    ),
    "both updates": (
      lambda times: times["hat_update"] + times["generator_update"],
      [flops.hat_update, flops.generator_update],
    ),
    "training step": (lambda times: times["step_long"], [flops.training_step]),
  }
  return {
    title: _row(
      rates,
      [seconds_of(times) for times in rounds],
      literal and seconds_of(literal),
      sum(count(config, rules=flops.UP_AT_FULL_SIZE) for count in counts) / 1e9,
      sum(count(config, rules=flops.MINIMAL) for count in counts) / 1e9,
    )
    for title, (seconds_of, counts) in work.items()
  }


def _row(
  rates: Sequence[float],
  fast: Sequence[float],
  literal: float | None,
  floor: float,
  minimal: float,
) -> Row:
  """Returns a row: medians over rounds, each time at the rate of its round."""
  seconds = statistics.median(fast)
  cost = statistics.median(
    a * rate for a, rate in zip(fast, rates, strict=True)
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
  for kind, seconds in result["compile_seconds"].items():
    memory = result["training_step_bytes"][kind] or 0
    lines.append(
      f"training step, {kind}: compiled in {seconds:.1f} s, "
      f"{memory / 2**30:.2f} GiB per device (as its compiler says)"
    )
  peak = result["process_peak_bytes"] / 2**30
  lines.append(f"peak memory of this process or device: {peak:.2f} GiB")
  return "\n".join(lines)
