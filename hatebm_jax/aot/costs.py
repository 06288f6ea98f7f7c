"""Counts what a program costs: FLOPs, bytes and collectives.

Each function takes the executions that `hlo.walk` yields.
"""

import math
import re
from typing import NamedTuple

import numpy as np

from hatebm_jax.aot.hlo import SLICES, Execution, Shape

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)
# These instructions name values and move none.
FREE = (
  "after-all",
  "async-done",
  "async-update",
  "bitcast",
  "call",
  "conditional",
  "constant",
  "get-tuple-element",
  "opt-barrier",
  "parameter",
  "partition-id",
  "tuple",
  "while",
)


class Traffic(NamedTuple):
  """Bytes of operands and results.

  Attributes:
    all: Bytes of all arrays.
    main_memory: Bytes of the arrays that lie in main memory (HBM on a TPU).
  """

  all: float
  main_memory: float


class Collectives(NamedTuple):
  """Collectives that are executed.

  Attributes:
    count: Number of executions.
    bytes: Bytes of their operands.
  """

  count: int
  bytes: float


def flops(run: list[Execution], loops_once: bool = False) -> int:
  """Counts the FLOPs of convolutions and dots, 2 for each multiply-add.

  A multiply-add is counted where a tap of the kernel meets a real element, and
  not where it meets padding or the zeros of a dilated input.

  Args:
    run: Executions that `hlo.walk` yielded.
    loops_once: True counts the body of a loop once, as XLA's cost analysis
      does.
  """
  count = {"convolution": _convolution, "dot": _dot}
  return sum(
    2 * count[each.instruction.opcode](each) * (1 if loops_once else each.times)
    for each in run
    if each.instruction.opcode in count
  )


def traffic(run: list[Execution]) -> Traffic:
  """Counts the bytes of operands and results of instructions outside fusions.

  A fusion is one instruction. If it updates an operand in place, the whole
  operand is counted. The padding of tiles is not counted.

  Args:
    run: Executions that `hlo.walk` yielded.
  """
  everywhere = main_memory = 0.0
  for each in run:
    opcode = each.instruction.opcode
    if each.fused or opcode in FREE or opcode.endswith("-start"):
      continue
    for shape in _moved(each):
      everywhere += each.times * shape.bytes
      main_memory += each.times * shape.bytes * (not shape.on_chip)
  return Traffic(everywhere, main_memory)


def collectives(run: list[Execution], in_loops: bool = False) -> Collectives:
  """Counts the collectives that are executed.

  Args:
    run: Executions that `hlo.walk` yielded.
    in_loops: True counts only those inside loops.
  """
  names = {*_COLLECTIVES, *(f"{name}-start" for name in _COLLECTIVES)}
  found = [
    each
    for each in run
    if each.instruction.opcode in names and (each.loops or not in_loops)
  ]
  return Collectives(
    sum(each.times for each in found),
    sum(each.times * s.bytes for each in found for s in each.operands),
  )


def _moved(each: Execution) -> tuple[Shape, ...]:
  """Returns the arrays that an instruction reads or writes."""
  results, opcode = each.instruction.shapes, each.instruction.opcode
  if opcode in SLICES or opcode.endswith("-done"):
    size = sum(shape.bytes for shape in results)
    read = [s._replace(bytes=min(s.bytes, size)) for s in each.operands]
    return (*read, *results)
  return each.operands + results


def _dot(each: Execution) -> int:
  """Counts the multiply-adds of a matrix product."""
  contracting = re.search(
    r"lhs_contracting_dims=\{([\d,]*)\}", each.instruction.text
  )[1]
  sizes = [each.operands[0].dims[int(d)] for d in contracting.split(",") if d]
  return math.prod(each.instruction.shapes[0].dims) * math.prod(sizes)


def _convolution(each: Execution) -> int:
  """Counts the multiply-adds of a convolution on real elements."""
  text = each.instruction.text
  lhs, rhs, out = _LABELS.search(text).groups()
  image, kernel = (operand.dims for operand in each.operands)
  result = each.instruction.shapes[0].dims
  window = _WINDOW.search(text)
  fields = dict(f.split("=") for f in window[1].split()) if window else {}
  count = kernel[rhs.index("i")] * kernel[rhs.index("o")]
  count *= image[lhs.index("b")]
  groups = re.search(r"batch_group_count=(\d+)", text)
  count //= int(groups[1]) if groups else 1
  for i in range(len(lhs) - 2):
    number = lambda field, i=i: int(fields.get(field, "1").split("x")[i])
    count *= _taps(
      image[lhs.index(str(i))],
      kernel[rhs.index(str(i))],
      result[out.index(str(i))],
      number("stride") if "stride" in fields else 1,
      int(fields["pad"].split("x")[i].split("_")[0]) if "pad" in fields else 0,
      number("lhs_dilate") if "lhs_dilate" in fields else 1,
      number("rhs_dilate") if "rhs_dilate" in fields else 1,
    )
  return count


def _taps(size, taps, out, stride, pad, lhs_dilate, rhs_dilate) -> int:
  """Counts the taps that meet an element over all outputs of an axis."""
  position = np.add.outer(
    stride * np.arange(out) - pad, rhs_dilate * np.arange(taps)
  )
  inside = (position >= 0) & (position <= (size - 1) * lhs_dilate)
  return int((inside & (position % lhs_dilate == 0)).sum())
