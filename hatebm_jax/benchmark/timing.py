"""Times the benchmark's programs in turns.

A Langevin step of synthesis is what one more step adds to the compiled training
step, so it is timed inside the loop that trains. A Langevin step of the joint
form is what one more step adds to a chain of its own.
"""

import datetime
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from hatebm_jax import data, errors, sharding
from hatebm_jax.benchmark import programs, results
from hatebm_jax.models import conv_ops

_ROUND_SECONDS = 0.5  # each program runs at least so long in a round
# A form whose first round takes so many times that of the main form is slow. It
# cannot be the best one, and further rounds would take most of the time.
_SLOW = 2


def measure(
  config: ml_collections.ConfigDict,
  num_rounds: int = 9,
  forms: Sequence[str] = tuple(conv_ops.FORMS),
) -> dict[str, Any]:
  """Runs the benchmark.

  Args:
    config: Config of a synthesis. The training step that is timed has its
      `langevin.num_steps`, and the main form is its `model.conv_form`.
    num_rounds: Number of rounds. Every program runs once in a round, and
      medians are taken over rounds.
    forms: Names of the forms that are timed beside the main one. `auto` is the
      form that suits the device.

  Returns:
    The results, which the command writes as JSON.

  Raises:
    ConfigError: If the config is of another objective or asks for fewer than
      3 Langevin steps, or if there is no such form.
  """
  _check(config)
  names = choose_forms(config.model.conv_form, forms, jax.default_backend())
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  product, gflop = programs.matrix_product(config, mesh)
  measure_rate = lambda: gflop / _seconds(product.call)
  least = _least_seconds(programs.least_gflop(config), measure_rate())
  compiled = _compile_forms(config, mesh, names, num_rounds, least)
  rates, times = _time_in_turns(compiled, measure_rate, num_rounds, least)
  return {
    "config": config.to_dict(),
    "machine": {
      "devices": mesh.size,
      "device_kind": mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
    },
    "rounds": num_rounds,
    "matrix_product_gflops": statistics.median(rates),
    **results.summary(config, programs.lengths(config), rates, times),
    **_of_compilers(compiled),
    "process_peak_bytes": _peak_bytes(mesh),
  }


def choose_forms(
  conv_form: str, forms: Sequence[str], platform: str
) -> list[str]:
  """Returns the names of the forms that are timed, the main one first.

  Args:
    conv_form: Value of `config.model.conv_form`, which names the main form.
    forms: Names of forms that are timed beside it; `auto` may be one of them.
    platform: Platform that the networks run on: `cpu`, `gpu` or `tpu`.

  Raises:
    ConfigError: If there is no form of such a name.
  """
  for name in forms:
    if name not in ("auto", *conv_ops.FORMS):
      raise errors.ConfigError(
        f"--forms: expected names out of auto, {', '.join(conv_ops.FORMS)}, "
        f"with commas between them, found {name!r}."
      )
  chosen = [conv_ops.choose(name, platform) for name in (conv_form, *forms)]
  return list(dict.fromkeys(chosen))


def _check(config: ml_collections.ConfigDict) -> None:
  if config.objective != "synthesis":
    raise errors.ConfigError(
      f"config.objective={config.objective!r}: expected a config of synthesis. "
      "It has all parts that are timed; the joint form is timed with its "
      "networks."
    )
  if config.langevin.num_steps <= programs.SHORT:
    raise errors.ConfigError(
      f"config.langevin.num_steps={config.langevin.num_steps}: expected "
      f"{programs.SHORT + 1} or more, so that the time of one more step can be "
      "told."
    )


def _compile_forms(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  names: Sequence[str],
  num_rounds: int,
  least: float,
) -> dict[str, dict[str, programs.Program]]:
  """Compiles the programs of all forms, which share one state.

  Args:
    config: Config of a synthesis.
    mesh: Mesh of the devices.
    names: Names of the forms, the main one first.
    num_rounds: Number of rounds that follow.
    least: Seconds that a turn of a form takes at least.

  Returns:
    The programs by form and name.
  """
  state = programs.start(config, mesh)
  kept = programs.copy(state)
  compiled, begun = {}, time.perf_counter()
  for i, form in enumerate(names):
    took = (time.perf_counter() - begun) / max(i, 1)
    left = took * (len(names) - i) + seconds_left({}, names, num_rounds, least)
    what = f"compiling {form}, form {i + 1} of {len(names)}"
    _say(what, left, "about" if i else "at least")
    changed = config.copy_and_resolve_references()
    changed.model.conv_form = form
    compiled[form] = programs.compile_all(changed, mesh, state, kept)
  return compiled


def _of_compilers(
  compiled: Mapping[str, Mapping[str, programs.Program]],
) -> dict[str, dict[str, Any]]:
  """Returns what the compilers say of the training step in each form."""
  # The first form is the main one, which has this name in older files too.
  kinds = ["fast", *list(compiled)[1:]]
  steps = {
    kind: each["step_long"]
    for kind, each in zip(kinds, compiled.values(), strict=True)
  }
  return {
    "compile_seconds": {k: step.compile_seconds for k, step in steps.items()},
    "training_step_bytes": {k: step.num_bytes for k, step in steps.items()},
  }


def _time_in_turns(
  compiled: Mapping[str, Mapping[str, programs.Program]],
  measure_rate: Callable[[], float],
  num_rounds: int,
  least: float,
) -> tuple[list[float], dict[str, list[dict[str, float]]]]:
  """Times the programs of all forms and the matrix product in turns.

  Args:
    compiled: Programs by form and name. The main form is the first one.
    measure_rate: Function that returns the rate of the matrix product.
    num_rounds: Number of rounds. Slow forms are timed in the first one only.
    least: Seconds that a turn of a form takes at least.

  Returns:
    The rate of each round, and for each form the seconds of the programs in
    each of its rounds.
  """
  names = list(compiled)
  rates, times, turns = [], {form: [] for form in names}, {}
  for i in range(num_rounds):
    rates.append(measure_rate())
    for form in names:
      if is_slow(form, turns, names[0]):
        continue
      if not i or form == names[0]:
        left = seconds_left(turns, names, num_rounds, least)
        what = f"round {i + 1} of {num_rounds}" + ("" if i else f", {form}")
        _say(what, left, "about" if i else "at least")
      begun = time.perf_counter()
      times[form].append(
        {
          name: _seconds(program.call)
          for name, program in compiled[form].items()
        }
      )
      turns.setdefault(form, []).append(time.perf_counter() - begun)
  return rates, times


def is_slow(form: str, turns: Mapping[str, Sequence[float]], main: str) -> bool:
  """Returns whether the first turn of a form took over twice the main form's.

  Args:
    form: Name of the form.
    turns: Seconds of the turns that each form has had.
    main: Name of the main form.
  """
  if form not in turns:
    return False
  return turns[form][0] > _SLOW * turns[main][0]


def seconds_left(
  turns: Mapping[str, Sequence[float]],
  names: Sequence[str],
  num_rounds: int,
  least: float,
) -> float:
  """Returns about how many seconds the turns that are left take.

  A turn of a form is expected to take as long as those it has had. A form that
  has had none counts with the least time of a turn: the main form in every
  round, another one once.

  Args:
    turns: Seconds of the turns that each form has had.
    names: Names of the forms, the main one first.
    num_rounds: Number of rounds.
    least: Seconds that a turn of a form takes at least.
  """
  total = 0.0
  for form in names:
    had = turns.get(form, [])
    if not had:
      total += least * (num_rounds if form == names[0] else 1)
    elif not is_slow(form, turns, names[0]):
      total += statistics.mean(had) * (num_rounds - len(had))
  return total


def _least_seconds(gflop: Mapping[str, float], rate: float) -> float:
  """Returns the least seconds of a turn: the floors, or a round's shares."""
  return sum(max(each / rate, _ROUND_SECONDS) for each in gflop.values())


def _say(what: str, left: float, word: str) -> None:
  """Prints a line of progress."""
  duration = datetime.timedelta(seconds=round(left))
  print(f"{what}; {word} {duration} left", file=sys.stderr, flush=True)


def _seconds(call: Callable[[], Any]) -> float:
  """Returns the mean seconds of as many calls as fill a round's share."""
  first = _wall_seconds(call, 1)
  if first > _ROUND_SECONDS:
    return first  # It is so long that being the first does not matter.
  once = _wall_seconds(call, 1)
  return _wall_seconds(call, max(1, round(_ROUND_SECONDS / once)))


def _wall_seconds(call: Callable[[], Any], repeats: int) -> float:
  start = time.perf_counter()
  for _ in range(repeats):
    # Each call is waited for, as in a chain. On a CPU calls would overlap.
    jax.block_until_ready(call())
  return (time.perf_counter() - start) / repeats


def _peak_bytes(mesh: Mesh) -> int:
  """Returns the peak memory of the first device, on a CPU of this process."""
  stats = mesh.devices.flat[0].memory_stats()
  if stats and "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
