"""Changes of a run's config while it trains, and their record in the workdir.

Some training fields may get another value when a run is resumed, such as a
lower learning rate. config.json holds the newest values. A record says from
which training step on each change holds, so that nobody takes the newest values
for those of the whole run.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from etils import epath

from hatebm_jax import config as config_lib
from hatebm_jax.config import rules
from hatebm_jax.run import files

FILE = "config_changes.json"

_FIELDS = dict(config_lib.fields())


def read(path: epath.Path) -> list[dict[str, Any]]:
  """Returns the record of a workdir's changes, in the order of their steps.

  Returns:
    One dict for each change. `step` is the number of training steps that were
    taken before it, `field` the name of the field, `from` and `to` its values.

  Raises:
    FileError: If the record is not JSON, or holds something else.
  """
  return files.read_record(
    path / FILE,
    "step, field, from and to of each change",
    _is_change,
    "Restore it from a copy, or move it away; the run then forgets what was "
    "changed.",
  )


def differences(
  old: Mapping[str, Any], new: Mapping[str, Any], kind: rules.OnResume
) -> dict[str, tuple[Any, Any]]:
  """Returns the fields of one kind that differ, with both values as JSON.

  Args:
    old: Config of the run.
    new: Config of the command.
    kind: Kind of field, by what a resumed run does with another value.
  """
  found = {}
  for name, field in _FIELDS.items():
    a, b = (_plain(config_lib.get(config, name)) for config in (old, new))
    if field.on_resume == kind and a != b:
      found[name] = (a, b)
  return found


def record(
  path: epath.Path, step: int, changed: Mapping[str, tuple[Any, Any]]
) -> None:
  """Adds changes to the record, and says them.

  Args:
    path: Path of the workdir.
    step: Number of training steps that the resumed run has taken. Later
      training steps are taken again. Earlier changes of these steps therefore
      hold from here on too.
    changed: Old and new value of each changed field.
  """
  entries = read(path)
  new = [
    {"step": step, "field": name, "from": a, "to": b}
    for name, (a, b) in changed.items()
  ]
  for entry in new:
    print(
      f"config.{entry['field']}: {entry['from']} -> {entry['to']} from "
      f"training step {step} on",
      flush=True,
    )
  merged = _merge(step, [*entries, *new])
  if merged != entries:
    files.write_json(path / FILE, merged, indent=2)


def undo(
  config: ml_collections.ConfigDict,
  entries: Iterable[Mapping[str, Any]],
  step: int,
) -> None:
  """Gives a config the values that trained the weights of a checkpoint.

  Args:
    config: Newest config of the run; it is changed.
    entries: Record of the changes.
    step: Training step of the checkpoint.
  """
  for entry in reversed(list(entries)):
    if entry["step"] >= step:
      config_lib.put(config, entry["field"], entry["from"])


def _merge(step: int, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns a record in which no change is later than a training step."""
  kept = [entry for entry in entries if entry["step"] < step]
  first, last = {}, {}
  for entry in entries if step else ():
    if entry["step"] >= step:
      first.setdefault(entry["field"], entry["from"])
      last[entry["field"]] = entry["to"]
  return kept + [
    {"step": step, "field": name, "from": first[name], "to": last[name]}
    for name in first
    if first[name] != last[name]
  ]


def _is_change(entry: Any) -> bool:
  """Returns whether JSON is an entry that `record` writes."""
  if not isinstance(entry, dict):
    return False
  field = _FIELDS.get(str(entry.get("field")))
  return (
    rules.STEPS.accepts(entry.get("step"))
    and field is not None
    and field.on_resume == rules.OnResume.RECORDED
    and all(
      name in entry and field.rule.accepts(entry[name])
      for name in ("from", "to")
    )
  )


def _plain(value: Any) -> Any:
  """Returns a value as JSON gives it back: tuples become lists."""
  return json.loads(json.dumps(value))
