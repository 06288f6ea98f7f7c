"""What a field of a config is, and rules for the values that it may have."""

import enum
import math
import numbers
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

# Training steps and indices are int32 on the devices.
_INT32 = 2**31 - 1
_MANY = 10**9
_OBJECTIVES = pathlib.Path(__file__).parents[1] / "objectives"


class Rule(NamedTuple):
  """The values that a field may have.

  Attributes:
    expected: Description of the allowed values, for error messages.
    accepts: Function that says whether a value is allowed.
    kind: Type of the field on the command line.
    optional: Whether the field may be None.
  """

  expected: str
  accepts: Callable[[Any], bool]
  kind: type
  optional: bool = False


class OnResume(enum.Enum):
  """What a resumed run does with a field whose value has changed.

  Attributes:
    FIXED: The run is refused.
    START: The field is ignored, because only a new run uses it.
    RECORDED: The new value holds from here on, and the run records this.
    FREE: The new value holds.
  """

  FIXED = "no"
  START = "ignored"
  RECORDED = "yes, recorded"
  FREE = "yes"


class Field(NamedTuple):
  """One field of a config.

  Attributes:
    default: Value that every config starts from.
    rule: Rule that says which values are allowed.
    help: Meaning of the field in whole sentences, with its unit.
    on_resume: What a resumed run does with another value.
    in_use: Whether sampling and evaluation use the field, so that their command
      line can set it.
  """

  default: Any
  rule: Rule
  help: str
  on_resume: OnResume = OnResume.FIXED
  in_use: bool = False


def integer(low: int, high: int = _MANY, note: str = "") -> Rule:
  """Returns a rule that accepts integers of a closed range.

  Args:
    low: Smallest allowed value.
    high: Largest allowed value.
    note: Meaning of the smallest value, for error messages.
  """
  return Rule(
    f"an integer from {low}{note and f' ({note})'} to {high}",
    lambda x: (
      isinstance(x, numbers.Integral)
      and not isinstance(x, bool)
      and low <= x <= high
    ),
    int,
  )


def real(low: float, high: float) -> Rule:
  """Returns a rule that accepts finite numbers of a closed range."""
  return Rule(
    f"a number from {low:g} to {high:g}",
    lambda x: _is_real(x) and low <= x <= high,
    float,
  )


def above(low: float, high: float) -> Rule:
  """Returns a rule that accepts numbers above `low`, up to `high`."""
  return Rule(
    f"a number above {low:g}, up to {high:g}",
    lambda x: _is_real(x) and low < x <= high,
    float,
  )


def below(low: float, high: float) -> Rule:
  """Returns a rule that accepts numbers from `low`, below `high`."""
  return Rule(
    f"a number from {low:g} to less than {high:g}",
    lambda x: _is_real(x) and low <= x < high,
    float,
  )


def choice(*choices: Any) -> Rule:
  """Returns a rule that accepts one of a few values of one type."""
  return Rule(
    " or ".join(map(repr, choices)),
    lambda x: any(type(x) is type(y) and x == y for y in choices),
    type(choices[0]),
  )


def module_of(folder: pathlib.Path) -> Rule:
  """Returns a rule that accepts the name of a module in a folder."""
  return choice(
    *sorted(
      path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")
    )
  )


def optional(rule: Rule) -> Rule:
  """Returns a rule that accepts None too."""
  return Rule(
    f"{rule.expected}, or None",
    lambda x: x is None or rule.accepts(x),
    rule.kind,
    optional=True,
  )


def _is_real(x: Any) -> bool:
  return (
    isinstance(x, numbers.Real) and not isinstance(x, bool) and math.isfinite(x)
  )


def _are_drops(x: Any) -> bool:
  """Says whether a value is a sequence of (training step, rate) pairs."""
  if not isinstance(x, list | tuple):
    return False
  pairs = [pair for pair in x if isinstance(pair, list | tuple)]
  if len(pairs) < len(x) or any(len(pair) != 2 for pair in pairs):
    return False
  if not all(STEPS.accepts(a) and RATE.accepts(b) for a, b in pairs):
    return False
  steps = [step for step, _ in pairs]
  return steps == sorted(set(steps))


def _are_sources(x: Any) -> bool:
  return isinstance(x, list | tuple) and all(
    isinstance(source, str) and source for source in x
  )


def _are_temperatures(x: Any) -> bool:
  return isinstance(x, list | tuple) and all(map(TEMPERATURE.accepts, x))


OBJECTIVE = module_of(_OBJECTIVES)
SEED = integer(0, _INT32)
STEPS = integer(1, _INT32)
CHECKPOINT = Rule(
  f"a training step, {STEPS.expected}, or 'all'",
  lambda x: STEPS.accepts(x) or (isinstance(x, str) and x == "all"),
  object,
)
FIRST_STEP = integer(0, _INT32)
STEPS_OR_NEVER = integer(0, _INT32, note="never")
COUNT = integer(1)
MILLION = integer(1, 10**6)
WIDTH = integer(1, 2**14)
BATCH = integer(1, 2**20)
RATE = real(0, 1_000)
SCALE = real(0, 1e6)
SHARE = real(0, 1)
BOUND = real(0, 1e9)
MAX_NORM = optional(above(0, 1e9))
TEMPERATURE = above(0, 1e6)
TEMPERATURES = Rule(
  "(temperature, ...), each above 0 and up to 1e+06, which may be empty",
  _are_temperatures,
  tuple,
)
TEXT = Rule("text, which may be empty", lambda x: isinstance(x, str), str)
BOOLEAN = Rule("True or False", lambda x: isinstance(x, bool), bool)
NETWORK = Rule(
  "the name of a module of hatebm_jax.models, such as 'hat' or 'generator'",
  lambda x: isinstance(x, str) and x.isidentifier(),
  str,
)
DROPS = Rule(
  "((training step, rate from there on), ...), steps increasing from 1, rates "
  "from 0 to 1000",
  _are_drops,
  tuple,
)
SOURCE = Rule(
  "a source such as digits, folder:PATH, tfds:NAME or prepared:PATH",
  lambda x: isinstance(x, str) and bool(x),
  str,
)
SOURCES = Rule(
  '("folder:PATH", "tfds:NAME", ...), which may be empty', _are_sources, tuple
)
