"""Adds up the TPU compiler's own estimate of what each instruction costs.

libtpu writes `estimated_cycles` beside every instruction of the optimized HLO.
The number comes from the compiler's cost model. It knows tiles, layouts, copies
and half-empty matrix units, so it says more than FLOPs and bytes do, but it is
no measurement.
"""

import collections
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from hatebm_jax.aot import costs, hlo

# Starting an instruction takes about this many cycles on a v5e chip: an
# instruction with almost no work has this estimate.
LAUNCH = 1800
_NUM_SHOWN = 10  # most expensive instructions

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_ENTRY = re.compile(r"^(\d+) (.*)$")
_NUMBER = re.compile(r"(\w+)=(\d+)")
_PACKAGE = "hatebm_jax/"
_MATRIX = ("convolution", "dot")
_REDUCE = ("reduce", "reduce-window", "select-and-scatter", "sort", "topk")
_ARITHMETIC = (
  "add",
  "subtract",
  "multiply",
  "divide",
  "maximum",
  "minimum",
  "select",
  "compare",
  "exponential",
  "log",
  "sqrt",
  "rsqrt",
  "tanh",
  "xor",
  "power",
)


class Cost(NamedTuple):
  """An instruction with the compiler's estimate.

  Attributes:
    execution: Instruction in its place in the run.
    kind: `convolution`, `reduce`, `elementwise` or `copy`.
    cycles: Estimated cycles of one execution.
    source: Line of this package that asked for it, such as
      `hatebm_jax/energy.py:27`; '' if the compiler made it.
  """

  execution: hlo.Execution
  kind: str
  cycles: int
  source: str

  @property
  def total(self) -> int:
    """Estimated cycles of all its executions."""
    return self.cycles * self.execution.times


def read(text: str) -> tuple[list[Cost], dict[str, int]]:
  """Reads the estimates of a program.

  Args:
    text: Text of `compiled.as_text()`.

  Returns:
    The instructions that carry an estimate; and the number of instructions that
    move or compute something but carry none, by opcode.
  """
  module, sources = hlo.parse(text), _sources(text)
  found, without = [], collections.Counter()
  for each in hlo.walk(module):
    if each.fused or each.instruction.opcode in costs.FREE:
      continue
    cycles = _CYCLES.search(each.instruction.text)
    if cycles:
      frame = _FRAME.search(each.instruction.text)
      source = sources.get(int(frame[1]), "") if frame else ""
      kind = _kind(module, each.instruction)
      found.append(Cost(each, kind, int(cycles[1]), source))
    else:
      without[each.instruction.opcode] += 1
  return found, dict(without.most_common())


def summary(
  text: str, chip_clock: float, peak_cycles: float, loop: int
) -> dict[str, Any]:
  """Returns the estimate of a training step as JSON.

  Args:
    text: Text of `compiled.as_text()`.
    chip_clock: Clock of the chip in Hz.
    peak_cycles: Cycles that the arithmetic of the step takes at the peak rate.
    loop: Number of iterations of the chain's loop.
  """
  found, without = read(text)
  inside = [cost for cost in found if loop in cost.execution.loops]
  outside = [cost for cost in found if loop not in cost.execution.loops]
  cycles = sum(cost.total for cost in found)
  return {
    "cycles_per_step": cycles,
    "seconds_per_step": cycles / chip_clock,
    "cycles_at_peak": round(peak_cycles),
    "over_peak": round(cycles / peak_cycles, 2) if peak_cycles else None,
    "langevin_step": _part(inside, loop),
    "outside_the_chain": _part(outside, 1),
    "most_expensive": [
      _shown(cost)
      for cost in sorted(found, key=lambda cost: -cost.total)[:_NUM_SHOWN]
    ],
    "without_estimate": without,
  }


def _part(found: list[Cost], steps: int) -> dict[str, Any]:
  """Returns the cycles of some instructions by kind, each over `steps`."""
  kinds = collections.Counter()
  for cost in found:
    kinds[cost.kind] += cost.total
  count = sum(cost.execution.times for cost in found)
  # The cycles of a launch are a part of each instruction's estimate.
  launch = sum(
    min(LAUNCH, cost.cycles) * cost.execution.times for cost in found
  )
  return {
    "cycles": round(sum(kinds.values()) / steps),
    **{kind: round(n / steps) for kind, n in sorted(kinds.items())},
    "instructions": round(count / steps),
    "of_which_launch": round(launch / steps),
  }


def _shown(cost: Cost) -> dict[str, Any]:
  instruction = cost.execution.instruction
  return {
    "cycles": cost.total,
    "times": cost.execution.times,
    "kind": cost.kind,
    "name": instruction.name,
    "result": [list(shape.dims) for shape in instruction.shapes],
    "operands": [list(shape.dims) for shape in cost.execution.operands],
    "source": cost.source,
  }


def _kind(module: hlo.Module, instruction: hlo.Instruction) -> str:
  """Returns what an instruction mainly does."""
  opcodes = set(_opcodes(module, instruction))
  for kind, members in (
    ("convolution", _MATRIX),
    ("reduce", _REDUCE),
    ("elementwise", _ARITHMETIC),
  ):
    if opcodes & set(members):
      return kind
  return "copy"


def _opcodes(module: hlo.Module, instruction: hlo.Instruction) -> Iterable[str]:
  """Yields the opcode of an instruction and of all that is fused into it."""
  yield instruction.opcode
  if instruction.opcode == "fusion":
    called = re.search(r"calls=%([\w.\-]+)", instruction.text)[1]
    for inner in module.computations[called].values():
      yield from _opcodes(module, inner)


def _sources(text: str) -> dict[int, str]:
  """Returns the innermost line of this package for each stack frame.

  The text of a module starts with tables of files, places and frames, each with
  numbers from 1. The parent of a frame is one less than what is written; 0
  stands for none.
  """
  files, places, frames = (
    _table(text, name) for name in ("FileNames", "FileLocations", "StackFrames")
  )
  numbers = lambda row: {k: int(v) for k, v in _NUMBER.findall(row)}
  places = {i: numbers(row) for i, row in places.items()}
  frames = {i: numbers(row) for i, row in frames.items()}
  result = {}
  for first in frames:
    frame = first
    while frame in frames:
      place = places[frames[frame]["file_location_id"]]
      _, ours, name = files[place["file_name_id"]].rpartition(_PACKAGE)
      if ours:
        result[first] = f"{_PACKAGE}{name.rstrip(chr(34))}:{place['line']}"
        break
      frame = frames[frame].get("parent_frame_id", 1) - 1
  return result


def _table(text: str, name: str) -> dict[int, str]:
  """Returns the rows of one of the tables above the computations."""
  rows = {}
  _, _, rest = text.partition(f"\n{name}\n")
  for line in rest.splitlines():
    row = _ENTRY.match(line)
    if not row:
      break
    rows[int(row[1])] = row[2]
  return rows
