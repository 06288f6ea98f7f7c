"""The config of a run: its fields, their defaults and their checks.

Every field is described once, in `training`, `images` or `usage`. A file of
configs/ starts from `default()` and sets what differs. On the command line
`--config.group.field=value` overrides a field.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from hatebm_jax import errors
from hatebm_jax.config import training, usage
from hatebm_jax.config.rules import Field, OnResume

# The fields of each group by name. The fields of the group "" stand alone.
GROUPS: dict[str, dict[str, Field]] = training.GROUPS | usage.GROUPS
# One help text for each group.
GROUP_HELP: dict[str, str] = training.HELP | usage.HELP

__all__ = [
  "GROUPS",
  "GROUP_HELP",
  "Field",
  "OnResume",
  "check",
  "check_group",
  "default",
  "fields",
  "from_saved",
  "get",
  "put",
]

_NEWER = " If a newer version of hatebm_jax has saved this config, install it."
_ADVICE = " Set it with --config.{name}=VALUE."
_SHOWN = 80  # characters of a wrong name or value in a message


def default() -> config_dict.ConfigDict:
  """Returns the default config, unlocked.

  A field that may be None is a typed placeholder, so that the command line can
  set it.
  """
  config = config_dict.ConfigDict()
  for group, fields in GROUPS.items():
    target = config
    if group:
      target = config[group] = config_dict.ConfigDict()
    for name, field in fields.items():
      if field.rule.optional:
        target[name] = config_dict.placeholder(field.rule.kind)
      if not field.rule.optional or field.default is not None:
        target[name] = field.default
  return config


def check(config: Mapping[str, Any]) -> None:
  """Checks every field of a config.

  Args:
    config: Config of a command or of a run.

  Raises:
    ConfigError: If a field is missing, is unknown or has a value that is not
      allowed. The message names the first such field and what is expected.
  """
  _check_names("", config, _top_names())
  for group in GROUPS:
    check_group(config[group] if group else config, group)


def problems(config: Mapping[str, Any]) -> list[str]:
  """Returns what is wrong with a config: a message for each wrong field.

  Args:
    config: Config of a command.
  """
  found = []

  def try_to(check, *args):
    try:
      check(*args)
    except errors.ConfigError as error:
      found.append(str(error))

  try_to(_check_names, "", config, _top_names())
  for group, members in GROUPS.items():
    if group and group not in config:
      continue  # The names at the top were already wrong.
    fields = config[group] if group else config
    if group and not hasattr(fields, "keys"):
      try_to(_check_is_group, fields, group)
      continue
    if group:
      try_to(_check_names, f"{group}.", fields, members)
    for name in members:
      if name in fields:
        try_to(_check_values, {name: fields[name]}, group, _ADVICE)
  return found


def check_group(fields: Mapping[str, Any], group: str) -> None:
  """Checks the fields of one group of a config.

  Args:
    fields: Values of the group by name, such as `config.data`.
    group: Name of the group, such as `data`. The empty name stands for the
      fields outside all groups.

  Raises:
    ConfigError: If a field is missing, is unknown or has a value that is not
      allowed.
  """
  if group:
    _check_is_group(fields, group)
    _check_names(f"{group}.", fields, GROUPS[group])
  _check_values(fields, group, _ADVICE)


def from_saved(saved: Mapping[str, Any]) -> config_dict.ConfigDict:
  """Builds a config from the JSON that a run saved.

  A field that the JSON lacks gets its default: an older version of this package
  saved the run and did not have the field yet. Lists become tuples.

  Args:
    saved: Content of a run's config.json.

  Returns:
    Complete config, unlocked.

  Raises:
    ConfigError: If a field is unknown or has a value that is not allowed.
  """
  config = default()
  _refuse_unknown("", saved, _top_names(), _NEWER)
  for group, fields in GROUPS.items():
    if group and group not in saved:
      continue
    values = saved[group] if group else saved
    if group:
      _check_is_group(values, group)
      _refuse_unknown(f"{group}.", values, fields, _NEWER)
    known = {name: values[name] for name in fields if name in values}
    _check_values(known, group)
    target = config[group] if group else config
    for name, value in known.items():
      target[name] = _tuples(value)
  return config


def fields() -> Iterator[tuple[str, Field]]:
  """Yields all fields with their names, `group.field` or `field`."""
  for group, members in GROUPS.items():
    for name, field in members.items():
      yield f"{group}.{name}" if group else name, field


def get(config: Mapping[str, Any], name: str) -> Any:
  """Returns the value of a field.

  Args:
    config: Complete config.
    name: Name of the field, `group.field`, or `field` outside all groups.
  """
  group, _, field = name.rpartition(".")
  return config[group][field] if group else config[field]


def put(config: config_dict.ConfigDict, name: str, value: Any) -> None:
  """Sets the value of a field; the lists of JSON become tuples.

  Args:
    config: Complete config.
    name: Name of the field, `group.field`, or `field` outside all groups.
    value: New value.
  """
  group, _, field = name.rpartition(".")
  (config[group] if group else config)[field] = _tuples(value)


def _top_names() -> list[str]:
  """Returns the names at the top of a config: fields alone, and groups."""
  return [*GROUPS[""], *filter(None, GROUPS)]


def _check_is_group(fields: Any, group: str) -> None:
  if not hasattr(fields, "keys"):
    raise errors.ConfigError(
      f"config.{group}={_show(fields)}: expected a group of fields."
    )


def _check_names(
  prefix: str, fields: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
  """Raises a ConfigError if a name is missing or unknown."""
  found = list(fields.keys())
  for name in expected:
    if name not in found:
      raise errors.ConfigError(
        f"config.{prefix}{name} is missing. Start from "
        "hatebm_jax.config.default(), which has all fields."
      )
  _refuse_unknown(prefix, found, expected)


def _refuse_unknown(prefix: str, found, expected, advice: str = "") -> None:
  """Raises a ConfigError that names the nearest field if one is unknown."""
  for name in found:
    if name not in expected:
      near = difflib.get_close_matches(str(name), expected, 1)
      raise errors.ConfigError(
        f"config.{prefix}{_cut(str(name))} is not known"
        + (f": did you mean config.{prefix}{near[0]}?" if near else ".")
        + advice
      )


def _check_values(
  fields: Mapping[str, Any], group: str, advice: str = ""
) -> None:
  """Raises a ConfigError if a value is not allowed.

  Args:
    fields: Values of the group by name. Fields may be missing.
    group: Name of the group.
    advice: End of the message. `{name}` stands for the full name of the field.
  """
  prefix = f"{group}." if group else ""
  for name, field in GROUPS[group].items():
    if name in fields and not field.rule.accepts(fields[name]):
      full_name = prefix + name
      raise errors.ConfigError(
        f"config.{full_name}={_show(fields[name])}: expected "
        f"{field.rule.expected}.{advice.format(name=full_name)}"
      )


def _tuples(value: Any) -> Any:
  """Returns a value of JSON with tuples in place of lists."""
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _show(value: Any) -> str:
  return _cut(repr(value))


def _cut(text: str) -> str:
  text = text if text.isprintable() else ascii(text)
  return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
