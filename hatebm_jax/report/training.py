"""Sections of a report about training: settings, curves, rollbacks, grids."""

import json
import re
from typing import Any

from etils import epath

from hatebm_jax.report import curves, formatting, page

_MAX_STEPS = 6  # Largest number of training steps in a row of grids.
_GRID_WIDTH = 560  # Pixels; this is the width of 8 images of 64 pixels.

_GRIDS = {
  "data": "training images of that step's batch, as the networks see them",
  "generator": "images of the generator, G(z)",
  "hat": "samples: G(z) + y at the end of the chains",
  "bank": "images of the bank that the generator learns from",
  "reconstruction": "the training images above, encoded and decoded",
  "noise": "decoded noise: G(z) of z drawn from N(0, I)",
}


def introduction(
  path: epath.Path,
  config: dict[str, Any],
  lines: list[dict[str, float]],
) -> str:
  """Says which run this is and how far it has come."""
  trained = max((line["step"] for line in lines), default=0)
  planned = config["train"]["num_steps"]
  return (
    f"<p>Run <code>{page.text(path.name)}</code>: {trained:,} of {planned:,} "
    f"training steps, seed {config['seed']}.</p>"
  )


def of_release(path: epath.Path, config: dict[str, Any], step: int) -> str:
  """Says which release this is."""
  return (
    f"<p>Release <code>{page.text(path.name)}</code>: weights of training step "
    f"{step:,}, without training state. Seed {config['seed']}.</p>"
  )


def settings(config: dict[str, Any]) -> str:
  """Shows the config, one group after the other."""
  show = lambda value: json.dumps(value, ensure_ascii=False)
  groups = {"run": {}}
  for name, value in config.items():
    if isinstance(value, dict):
      groups[name] = {field: show(x) for field, x in value.items()}
    else:
      groups["run"][name] = show(value)
  return page.details("config.json", page.grouped_table(groups))


def changes(records: list[dict[str, Any]]) -> str:
  """Lists which training fields changed while the run trained."""
  if not records:
    return ""
  show = lambda value: json.dumps(value, ensure_ascii=False)
  rows = [
    [formatting.number(x["step"]), x["field"], show(x["from"]), show(x["to"])]
    for x in records
  ]
  head = ["after training step", "field", "before", "from there on"]
  return page.table(head, rows, "Changes, as recorded in config_changes.json.")


def metrics(
  path: epath.Path,
  lines: list[dict[str, float]],
  rollbacks: list[dict[str, Any]],
) -> str:
  """Draws the metrics that the run has logged."""
  marks = [rollback["step"] for rollback in rollbacks]
  figures = []
  for name, title in curves.panels(lines).items():
    last = next(line for line in reversed(lines) if name in line)
    alt = (
      f"Curve of {title} ({name}) against the training step; "
      f"{formatting.number(last[name])} at step {last['step']:,}."
    )
    figures.append(page.figure(page.svg(curves.svg(lines, name, marks)), alt))
  if not figures:
    command = formatting.command(path, "train")
    return page.hint("Nothing is logged yet. Train the run:", command)
  marked = " Dashed lines are rollbacks." if marks else ""
  note = f"A point is a mean over the training steps between two logs.{marked}"
  return page.note(note) + page.grid(figures)


def rollbacks(records: list[dict[str, Any]]) -> str:
  """Lists where training diverged and which step it went back to."""
  if not records:
    return ""
  rows = [
    [formatting.number(x[name]) for name in ("step", "to", "rule", "value")]
    for x in records
  ]
  head = ["diverged at step", "went back to step", "rule", "value"]
  return page.table(head, rows, "Rollbacks, as recorded in rollbacks.json.")


def grids(folder: epath.Path) -> str:
  """Shows the grids that training wrote, a row for each kind of image."""
  files = {}
  for file in page.png_files(folder):
    if match := re.fullmatch(r"(\d+)_(.+)", file.stem):
      files.setdefault(match[2], []).append((int(match[1]), file))
  # Unknown kinds follow the known ones.
  order = [*_GRIDS, *sorted(files)]
  parts = []
  for name in sorted(files, key=order.index):
    title = f"{name} ({_GRIDS[name]})" if name in _GRIDS else name
    shown = [
      page.figure(picture, f"Grid of {title}, step {step:,}", f"step {step:,}")
      for step, file in evenly(files[name])
      if (picture := page.png(file, _GRID_WIDTH))
    ]
    parts += [page.heading(title), page.grid(shown, narrow=True)]
  return "\n".join(parts)


def evenly(items: list[Any]) -> list[Any]:
  """Picks at most 6 entries of a list, with the first and the last one."""
  if len(items) <= _MAX_STEPS:
    return items
  stride = (len(items) - 1) / (_MAX_STEPS - 1)
  return [items[round(i * stride)] for i in range(_MAX_STEPS)]
