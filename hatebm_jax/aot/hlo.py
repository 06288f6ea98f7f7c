"""Reads from XLA's optimized HLO text what a compiled program executes.

XLA's own cost analysis counts the body of a loop once. Here a program is walked
as it runs: loop bodies with their trip counts, fusions and calls with their
content. All branches of a `conditional` are walked. `costs.py` counts what the
walk finds.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

_COMPUTATION = re.compile(r"^(ENTRY )?%([^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = ")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)"
  r"|branch_computations=\{([^}]*)\}"
)
_CALLS = ("fusion", "call", "conditional", "async-start")
# These instructions read no more of an operand than they write.
SLICES = ("dynamic-slice", "gather", "slice")


class Shape(NamedTuple):
  """Shape and place of an array.

  Attributes:
    dims: Size along each dimension.
    bytes: Size in memory without the padding of tiles.
    on_chip: True if the array lies in a memory of the chip's core and not in
      the chip's main memory.
  """

  dims: tuple[int, ...]
  bytes: float
  on_chip: bool


class Instruction(NamedTuple):
  """Instruction of a program.

  Attributes:
    name: Name without the per cent sign.
    opcode: Operation of HLO, such as `convolution`.
    shapes: Shapes of the result. A tuple has several.
    operands: Names of instructions in the same computation.
    text: Attributes, which follow the operands.
    literal: Text in the parentheses. For a constant it is the value.
  """

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  text: str
  literal: str


Computation: TypeAlias = dict[str, Instruction]


class Module(NamedTuple):
  """A program.

  Attributes:
    computations: Computations by their names.
    entry: Name of the computation that is run.
  """

  computations: dict[str, Computation]
  entry: str


class Execution(NamedTuple):
  """An instruction in its place in the run.

  Attributes:
    instruction: Instruction that is executed.
    operands: Shapes of its operands. The end (`-done`) of an asynchronous
      instruction has the operands of its start. The operands of a fusion have
      the bytes that the fusion reads of them.
    loops: Trip counts of the loops around it, outermost first.
    fused: True if it is a part of a fusion. Its operands need not be in memory
      then.
  """

  instruction: Instruction
  operands: tuple[Shape, ...]
  loops: tuple[int, ...]
  fused: bool

  @property
  def times(self) -> int:
    """Number of times that it is executed."""
    return math.prod(self.loops)


def parse(text: str) -> Module:
  """Parses the text of `compiled.as_text()`.

  Raises:
    ValueError: If the text is no HLO module.
  """
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
  """Yields every instruction that is executed, once for each place.

  Raises:
    ValueError: If the trip count of a loop is not known.
  """
  yield from _walk(module, module.entry, (), False)


def trip_counts(run: list[Execution]) -> list[tuple[int, ...]]:
  """Returns the trip counts of all loops.

  Args:
    run: Executions that `walk` yielded.

  Returns:
    A tuple for each loop: the trip counts of the loops around it, then its own.
  """
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
  """Returns the index after the parenthesis that closes the one at `start`."""
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
  """Returns a fusion's operands with the bytes that it reads of them.

  If a fusion takes only slices of an operand, it reads only these.
  """
  inside = module.computations[_CALLED.search(fusion.text)[1]]
  read = list(operands)
  for parameter in inside.values():
    if parameter.opcode != "parameter":
      continue
    users = [i for i in inside.values() if parameter.name in i.operands]
    if users and all(user.opcode in SLICES for user in users):
      i = int(parameter.literal)
      size = sum(user.shapes[0].bytes for user in users)
      read[i] = read[i]._replace(bytes=min(read[i].bytes, size))
  return tuple(read)


def _trip_count(module, computation, loop: Instruction) -> int:
  """Returns the trip count of a while loop.

  XLA writes it, or the loop is a `for i in range(start, n)`.

  Raises:
    ValueError: If the loop does not count up by itself.
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
      f"constant, found {list(condition)}. Its trip count is not known."
    )
  index = int(re.search(r"index=(\d+)", counters[0].text)[1])
  start = computation[computation[loop.operands[0]].operands[index]]
  while start.opcode in ("copy", "bitcast"):
    start = computation[start.operands[0]]
  if start.opcode != "constant":
    raise ValueError(
      f"{loop.name}: expected a counter that starts at a constant, found "
      f"{start.opcode}. Its trip count is not known."
    )
  return int(numbers[0].literal) - int(start.literal)
