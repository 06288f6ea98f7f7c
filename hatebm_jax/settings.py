"""What every field of a config may be; checked before anything else happens."""

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hatebm_jax import errors

# Training steps and indices are int32 on the devices.
_INT32 = 2**31 - 1
_MANY = 10**9
_SHOWN = 80  # characters of a wrong value


class Rule(NamedTuple):
  """What a field may be.

  Attributes:
    expected: in words, for the message.
    accepts: value -> whether it may be that.
  """

  expected: str
  accepts: Callable[[Any], bool]


def _integer(low: int, high: int = _MANY) -> Rule:
  return Rule(
    f"an integer from {low} to {high}",
    lambda x: (
      isinstance(x, numbers.Integral)
      and not isinstance(x, bool)
      and low <= x <= high
    ),
  )


def _is_real(x: Any) -> bool:
  return (
    isinstance(x, numbers.Real) and not isinstance(x, bool) and math.isfinite(x)
  )


def _real(low: float, high: float) -> Rule:
  return Rule(
    f"a number from {low:g} to {high:g}",
    lambda x: _is_real(x) and low <= x <= high,
  )


def _above(low: float, high: float) -> Rule:
  return Rule(
    f"a number above {low:g}, up to {high:g}",
    lambda x: _is_real(x) and low < x <= high,
  )


def _choice(*choices: Any) -> Rule:
  return Rule(
    " or ".join(map(repr, choices)),
    lambda x: any(
      type(x) is type(choice) and x == choice for choice in choices
    ),
  )


def _optional(rule: Rule) -> Rule:
  return Rule(
    f"{rule.expected}, or None", lambda x: x is None or rule.accepts(x)
  )


def _are_drops(x: Any) -> bool:
  """Says whether a value is ((first step, rate from there on), ...)."""
  if not isinstance(x, list | tuple):
    return False
  pairs = [pair for pair in x if isinstance(pair, list | tuple)]
  if len(pairs) < len(x) or any(len(pair) != 2 for pair in pairs):
    return False
  if not all(_STEPS.accepts(a) and _RATE.accepts(b) for a, b in pairs):
    return False
  steps = [step for step, _ in pairs]
  return steps == sorted(set(steps))


def _are_sources(x: Any) -> bool:
  return isinstance(x, list | tuple) and all(
    isinstance(source, str) and source for source in x
  )


_STEPS = _integer(1, _INT32)
_STEPS_OR_NEVER = Rule(
  f"an integer from 0 (never) to {_INT32}", _integer(0, _INT32).accepts
)
_COUNT = _integer(1)
_WIDTH = _integer(1, 2**14)
_BATCH = _integer(1, 2**20)
_RATE = _real(0, 1_000)
_SCALE = _real(0, 1e6)
_STEP_SIZE = _real(0, 1e9)
_NORM = _optional(_above(0, 1e9))
_TEMPERATURE = _above(0, 1e6)
_CHAIN = _integer(1, 10**6)
_TEXT = Rule("text, which may be empty", lambda x: isinstance(x, str))
_NETWORK = Rule(
  "the name of a module of hatebm_jax.models, such as 'generator' or 'decoder'",
  lambda x: isinstance(x, str) and x.isidentifier(),
)
_BOOLEAN = Rule("True or False", lambda x: isinstance(x, bool))
_DROPS = Rule(
  "((training step, rate from there on), ...), steps increasing from 1, rates "
  "from 0 to 1000",
  _are_drops,
)

# Group "": fields that stand alone.
_RULES: dict[str, dict[str, Rule]] = {
  "": {
    "objective": _choice("synthesis", "joint", "autoencoder", "sngan"),
    "seed": _integer(0, _INT32),
  },
  "train": {
    "num_steps": _STEPS,
    "batch_size": _BATCH,
    "average_decay": Rule(
      "a number from 0 to less than 1", lambda x: _is_real(x) and 0 <= x < 1
    ),
    "log_every": _STEPS,
    "image_every": _STEPS,
    "checkpoint_every": _STEPS,
    "checkpoint_minutes": _real(0, 1e6),
    "keep_checkpoints": _integer(1, 10**6),
    "test_every": _STEPS_OR_NEVER,
    "on_divergence": _choice("warn", "rollback"),
    "max_rollbacks": _integer(1, 10**6),
    "profile_at": _STEPS_OR_NEVER,
    "steps_per_dispatch": _integer(1, 10**6),
  },
  "divergence": {
    "max_energy_gap": _real(0, 1e9),
    "max_clip_rate": _real(0, 1),
    "max_drift_z": _real(0, 1e9),
    "max_saturation": _real(0, 1),
    "patience": _integer(1, 10**6),
  },
  "data": {
    "source": Rule(
      "digits, folder:PATH or tfds:NAME", lambda x: isinstance(x, str) and x
    ),
    "image_size": _integer(1, 4_096),
    "channels": _choice(1, 3),
    "crop": _choice("center", "random"),
    "data_dir": _TEXT,
    "cache_gib": _real(0, 1e6),
  },
  "model": {
    "width": _WIDTH,
    "latent_size": _integer(1, 2**16),
    "dtype": _choice("float32", "bfloat16"),
  },
  "langevin": {
    "num_steps": _CHAIN,
    "step_size_y": _STEP_SIZE,
    "step_size_z": _STEP_SIZE,
    "temperature": _TEMPERATURE,
    "tau": _SCALE,
    "max_drift_y": _NORM,
    "init_scale_z": _SCALE,
    "init_scale_y": _SCALE,
  },
  "hat": {
    "learning_rate": _RATE,
    "learning_rate_drops": _DROPS,
    "max_grad_norm": _NORM,
    "data_epsilon": _SCALE,
  },
  "generator": {
    "learning_rate": _RATE,
    "learning_rate_drops": _DROPS,
    "max_grad_norm": _NORM,
    "out_factor": _above(0, 1_000),
    "bank_size": _COUNT,
    "kind": _NETWORK,
    "width": _optional(_WIDTH),
    "norm_epsilon": _above(0, 1),
    "source": _TEXT,
  },
  "autoencoder": {"latent_epsilon": _SCALE},
  "sngan": {
    "discriminator_width": _WIDTH,
    "discriminator_steps": _integer(1, 1_000),
    "discriminator_learning_rate": _RATE,
    "decay_steps": _STEPS,
  },
  "sharding": {
    "chains": _choice("shard_map", "pmap"),
    "split_optimizer": _BOOLEAN,
  },
  "sample": {
    "num_images": _COUNT,
    "batch_size": _BATCH,
    "weights": _choice("raw", "averaged"),
    "checkpoint": _optional(_STEPS),
  },
  "evaluate": {
    "num_steps": _CHAIN,
    "step_size_y": _optional(_STEP_SIZE),
    "step_size_z": _optional(_STEP_SIZE),
    "temperature": _optional(_TEMPERATURE),
    "tau": _optional(_SCALE),
    "max_drift_y": _NORM,
    "init_scale_z": _optional(_SCALE),
    "init_scale_y": _SCALE,
  },
  "metrics": {
    "inception": _TEXT,
    "split": _choice("train", "test"),
    "num_references": _optional(_COUNT),
    "statistics": _TEXT,
    "samples": _TEXT,
    "repeats": _integer(1, 10**6),
  },
  "ood": {
    "sets": Rule(
      '("folder:PATH", "tfds:NAME", ...), which may be empty', _are_sources
    ),
    "num_images": _COUNT,
    "bootstraps": _integer(1, 10**6),
  },
  "chains": {
    "num_chains": Rule(
      "an integer from 0 (none) to 1000000", _integer(0, 10**6).accepts
    ),
    "multiple": _integer(1, 10**6),
  },
}


def check(config: Mapping[str, Any]) -> None:
  """Checks every field of a config.

  Args:
    config: of a command or of a run.

  Raises:
    ConfigError: names the first field that is missing, unknown, or of a value
      that it may not have; says what is expected.
  """
  _check_names("", config, [*_RULES[""], *(name for name in _RULES if name)])
  for group in _RULES:
    check_group(config[group] if group else config, group)


def check_group(fields: Mapping[str, Any], group: str) -> None:
  """Checks the fields of one group of a config.

  Args:
    fields: the group, as in `config.data`.
    group: its name, as in `data`; empty: fields that stand alone.

  Raises:
    ConfigError: as `check`.
  """
  rules = _RULES[group]
  prefix = f"{group}." if group else ""
  if group:
    if not hasattr(fields, "keys"):
      raise errors.ConfigError(
        f"config.{group}={_show(fields)}: expected a group of fields."
      )
    _check_names(prefix, fields, rules)
  for name, rule in rules.items():
    if not rule.accepts(fields[name]):
      raise errors.ConfigError(
        f"config.{prefix}{name}={_show(fields[name])}: expected "
        f"{rule.expected}. Set it with --config.{prefix}{name}=VALUE."
      )


def _check_names(prefix, fields, expected) -> None:
  """Raises a ConfigError at a name that is missing or unknown."""
  found = list(fields.keys())
  for name in expected:
    if name not in found:
      raise errors.ConfigError(
        f"config.{prefix}{name} is missing: start from configs/default.py, "
        "which has all fields."
      )
  for name in found:
    if name not in expected:
      near = difflib.get_close_matches(str(name), expected, 1)
      raise errors.ConfigError(
        f"config.{prefix}{name} is not known"
        + (f": did you mean config.{prefix}{near[0]}?" if near else ".")
      )


def _show(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
