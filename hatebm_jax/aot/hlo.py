"""What a compiled program executes, read from XLA's optimized HLO text.

XLA's own cost analysis counts the body of a loop once. Here a program is walked
as it runs: loop bodies by their trip counts, fusions and calls by what they
hold. Of a `conditional` every branch is counted.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_COMPUTATION = re.compile(r"^(ENTRY )?%([^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = ")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)"
  r"|branch_computations=\{([^}]*)\}"
)
_CALLS = ("fusion", "call", "conditional", "async-start")
_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)
# Instructions that name values and move none.
_FREE = (
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


# These read no more of an operand than they write.
_SLICES = ("dynamic-slice", "gather", "slice")


class Shape(NamedTuple):
  """An array.

  Attributes:
    dims: its size along each dimension.
    bytes: its size in memory, without the padding of tiles.
    on_chip: it lies in a memory of the chip's core, not in its main memory.
  """

  dims: tuple[int, ...]
  bytes: float
  on_chip: bool


class Instruction(NamedTuple):
  """One instruction.

  Attributes:
    name: without the per cent sign.
    opcode: of HLO, such as `convolution`.
    shapes: of the result; several where it is a tuple.
    operands: names of instructions of the same computation.
    text: what stands behind the operands: attributes.
    literal: what stands in the parentheses, of a constant its value.
  """

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  text: str
  literal: str


Computation = dict[str, Instruction]


class Module(NamedTuple):
  """A program: its computations by name, and which of them is run."""

  computations: dict[str, Computation]
  entry: str


class Execution(NamedTuple):
  """An instruction in its place in the run.

  Attributes:
    instruction: that is executed.
    operands: shapes of its operands; where it is the end (`-done`) of an
      asynchronous one, of the operands of its start; of a fusion, with the
      bytes that it reads of them.
    loops: trip counts of the loops around it, outermost first.
    fused: it is a part of a fusion: its operands need not be in memory.
  """

  instruction: Instruction
  operands: tuple[Shape, ...]
  loops: tuple[int, ...]
  fused: bool

  @property
  def times(self) -> int:
    """How often it is executed."""
    return math.prod(self.loops)


class Traffic(NamedTuple):
  """Bytes of operands and results.

  Attributes:
    all: wherever the arrays lie.
    main_memory: those alone that lie in main memory (HBM on a TPU).
  """

  all: float
  main_memory: float


class Collectives(NamedTuple):
  """How many collectives are executed, and the bytes of their operands."""

  count: int
  bytes: float


def parse(text: str) -> Module:
  """Parses the text of `compiled.as_text()`."""
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations[header[2]] = {}
      entry = header[2] if header[1] else entry
    elif current is not None and (found := _INSTRUCTION.match(line)):
      instruction = _parse_instruction(found[1], line[found.end() :])
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError("expected the text of an HLO module, found no ENTRY")
  return Module(computations, entry)


def walk(module: Module) -> Iterator[Execution]:
  """Yields every instruction that is executed, once for each place."""
  yield from _walk(module, module.entry, (), False)


def flops(run: list[Execution], loops_once: bool = False) -> int:
  """FLOPs of convolutions and dots, 2 a multiply-add.

  A multiply-add is counted where a kernel's tap meets a real element: not where
  it meets padding or the zeros of a dilated input.

  Args:
    run: of `walk`.
    loops_once: count the body of a loop once, as XLA's cost analysis does.
  """
  count = {"convolution": _convolution, "dot": _dot}
  return sum(
    2 * count[each.instruction.opcode](each) * (1 if loops_once else each.times)
    for each in run
    if each.instruction.opcode in count
  )


def traffic(run: list[Execution]) -> Traffic:
  """Bytes of operands and results of every instruction outside fusions.

  A fusion is one instruction; where it updates an operand in place, the whole
  operand is counted. The padding of tiles is not.
  """
  everywhere = main_memory = 0.0
  for each in run:
    opcode = each.instruction.opcode
    if each.fused or opcode in _FREE or opcode.endswith("-start"):
      continue
    for shape in _moved(each):
      everywhere += each.times * shape.bytes
      main_memory += each.times * shape.bytes * (not shape.on_chip)
  return Traffic(everywhere, main_memory)


def collectives(run: list[Execution], in_loops: bool = False) -> Collectives:
  """Collectives that are executed: all of them, or those inside loops."""
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


def trip_counts(run: list[Execution]) -> list[tuple[int, ...]]:
  """Trip counts of all loops, each behind those of the loops around it."""
  return sorted({each.loops for each in run if each.loops})


def _parse_instruction(name: str, rest: str) -> Instruction:
  """Parses `TYPE opcode(operands), attributes`."""
  end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
  opcode, _, rest_ = rest[end:].strip().partition("(")
  close = _closing("(" + rest_, 0) - 2
  inside, text = rest_[:close], rest_[close + 1 :]
  return Instruction(
    name,
    opcode,
    tuple(_shape(*groups) for groups in _SHAPE.findall(rest[:end])),
    tuple(_NAME.findall(inside)),
    text,
    inside,
  )


def _closing(text: str, start: int) -> int:
  """Index behind the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[i], 0)
    if depth == 0:
      return i + 1
  raise ValueError(f"expected a closing parenthesis: {text}")


def _shape(dtype: str, dims: str, layout: str) -> Shape:
  sizes = tuple(int(size) for size in dims.split(",") if size)
  bits = re.search(r"\d+", dtype)
  # pred takes a byte; token and opaque take none.
  item = int(bits[0]) / 8 if bits else float(dtype == "pred")
  space = re.search(r"S\((\d+)\)", layout)
  on_chip = bool(space) and space[1] != "0"
  return Shape(sizes, item * math.prod(sizes), on_chip)


def _walk(module, name, loops, fused) -> Iterator[Execution]:
  computation = module.computations[name]
  for instruction in computation.values():
    source = instruction
    if instruction.opcode.endswith("-done"):
      source = computation[instruction.operands[0]]
    operands = tuple(
      shape for o in source.operands for shape in computation[o].shapes
    )
    if instruction.opcode == "fusion":
      operands = _read_by_fusion(module, instruction, operands)
    yield Execution(instruction, operands, loops, fused)
    if instruction.opcode == "while":
      trips = _trip_count(module, computation, instruction)
      for part in ("body", "condition"):
        called = re.search(rf"{part}=%([\w.\-]+)", instruction.text)[1]
        yield from _walk(module, called, (*loops, trips), fused)
    elif instruction.opcode in _CALLS:
      in_fusion = fused or instruction.opcode == "fusion"
      for one, several in _CALLED.findall(instruction.text):
        for called in [one] if one else _NAME.findall(several):
          yield from _walk(module, called, loops, in_fusion)


def _read_by_fusion(module, fusion: Instruction, operands) -> tuple[Shape, ...]:
  """A fusion's operands, with the bytes of the slices where it reads those."""
  inside = module.computations[_CALLED.search(fusion.text)[1]]
  read = list(operands)
  for parameter in inside.values():
    if parameter.opcode != "parameter":
      continue
    users = [i for i in inside.values() if parameter.name in i.operands]
    if users and all(user.opcode in _SLICES for user in users):
      i = int(parameter.literal)
      size = sum(user.shapes[0].bytes for user in users)
      read[i] = read[i]._replace(bytes=min(read[i].bytes, size))
  return tuple(read)


def _trip_count(module, computation, loop: Instruction) -> int:
  """Trip count of a while: XLA's own, else of `for i in range(start, n)`.

  Raises:
    ValueError: the loop does not count up by itself.
  """
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text)
  if known:
    return int(known[1])
  name = re.search(r"condition=%([\w.\-]+)", loop.text)[1]
  condition = module.computations[name]
  numbers = [i for i in condition.values() if i.opcode == "constant"]
  counters = [i for i in condition.values() if "index=" in i.text]
  if len(numbers) != 1 or len(counters) != 1:
    raise ValueError(
      f"{loop.name}: expected a condition that compares a counter with a "
      f"constant, found {list(condition)}: its trip count is not known"
    )
  index = int(re.search(r"index=(\d+)", counters[0].text)[1])
  start = computation[computation[loop.operands[0]].operands[index]]
  while start.opcode in ("copy", "bitcast"):
    start = computation[start.operands[0]]
  if start.opcode != "constant":
    raise ValueError(
      f"{loop.name}: expected a counter that starts at a constant, found "
      f"{start.opcode}: its trip count is not known"
    )
  return int(numbers[0].literal) - int(start.literal)


def _moved(each: Execution) -> tuple[Shape, ...]:
  """Arrays that an instruction reads or writes."""
  results, opcode = each.instruction.shapes, each.instruction.opcode
  if opcode in _SLICES or opcode.endswith("-done"):
    size = sum(shape.bytes for shape in results)
    read = [s._replace(bytes=min(s.bytes, size)) for s in each.operands]
    return (*read, *results)
  return each.operands + results


def _dot(each: Execution) -> int:
  """Multiply-adds of a matrix product."""
  contracting = re.search(
    r"lhs_contracting_dims=\{([\d,]*)\}", each.instruction.text
  )[1]
  sizes = [each.operands[0].dims[int(d)] for d in contracting.split(",") if d]
  return math.prod(each.instruction.shapes[0].dims) * math.prod(sizes)


def _convolution(each: Execution) -> int:
  """Multiply-adds of a convolution on real elements."""
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
  """Along one axis: pairs of an output and a tap that meets an element."""
  position = np.add.outer(
    stride * np.arange(out) - pad, rhs_dilate * np.arange(taps)
  )
  inside = (position >= 0) & (position <= (size - 1) * lhs_dilate)
  return int((inside & (position % lhs_dilate == 0)).sum())
