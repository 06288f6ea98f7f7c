"""Writes the model card of a release."""

import json
from typing import Any

import ml_collections

from hatebm_jax import chains, errors, evaluation
from hatebm_jax.release import golden as golden_lib
from hatebm_jax.run import weights

FILE = "README.md"
UNKNOWN = "unknown"
_NO_LICENSE = (
  "The licence of the weights was not stated when this release was made. Ask\n"
  "the people who trained them before you use the weights or pass them on."
)
_CARD = """\
---
license: {license_name}
library_name: hatebm_jax
tags:
- energy-based-model
- image-generation
- jax
---

# {name}

This is a release for the Python package `hatebm_jax`, which implements Hat EBM:
energy-based models of images X = G(Z) + Y. {origin}

![Samples]({grid})

## Data and settings

{settings}

The chains of training and of evaluation have these settings:

{chains}

`config.json` holds all settings.

## Figures

{figures}

## Use

These commands draw samples and measure them. `{name}` is the path of this
folder.

```bash
python -m hatebm_jax.main --workdir={name} --mode=sample --out=drawn
python -m hatebm_jax.main --workdir={name} --mode=evaluate --out=drawn
```

This command starts a new run from these weights, in the workdir `DIR`:

```bash
python -m hatebm_jax.main --config={name} --workdir=DIR \\
  --config.train.start_from={name}
```

## Files

{contents}

In `{weights}` the arrays have the names that they have in a run. `params` are
the raw weights, and `average` are the averaged ones where there are any.

The {num} golden samples were drawn with seed {seed} on {device} ({system}) with
jax {jax}. `python -m hatebm_jax.convert check {name}` draws them again and
compares them. Other processors round in another way and may give other pixels.

## Licence

{license_text}
"""


def make(
  name: str,
  config: ml_collections.ConfigDict,
  origin: str,
  golden: dict[str, Any],
  figures: dict[str, Any] | None,
  license_name: str,
) -> str:
  """Returns the model card as Markdown.

  Args:
    name: Name of the release.
    config: Config of the run.
    origin: Sentence that says where the weights come from.
    golden: Content of `golden.json`.
    figures: Content of the run's `evaluation.json`; None: there is none.
    license_name: Licence of the weights.
  """
  settings = golden["settings"]
  return _CARD.format(
    name=name,
    origin=origin,
    grid=golden_lib.GRID,
    settings=_settings(config, settings["checkpoint_step"]),
    chains=_chains(config),
    figures=_figures(figures),
    weights=weights.FILE,
    contents=_table(["file", "content"], _contents(figures)),
    num=golden["num_images"],
    seed=settings["seed"],
    **golden["platform"],
    license_name=license_name,
    license_text=(
      _NO_LICENSE if license_name == UNKNOWN else f"{license_name}."
    ),
  )


def _contents(figures: dict[str, Any] | None) -> list[list[str]]:
  """Returns the files of the release and what they hold."""
  rows = [
    ["`config.json`", "the config of the run"],
    [f"`{weights.FILE}`", "the weights"],
    [f"`{golden_lib.GRID}`", "the golden samples"],
    [
      f"`{golden_lib.FILE}`",
      "the SHA-256 of the golden samples, their settings and their platform",
    ],
  ]
  if figures is not None:
    rows.append(["`evaluation.json`", "the figures with their protocol"])
  return rows


def _table(head: list[str], rows: list[list[Any]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _settings(config: ml_collections.ConfigDict, step: int) -> str:
  """Returns the table of what the run is."""
  size = config.data.image_size
  return _table(
    ["setting", "value"],
    [
      ["objective", config.objective],
      ["data", config.data.source],
      ["images", f"{size}x{size}, {config.data.channels} channel(s)"],
      ["base width", config.model.width],
      ["output factor of the generator", config.generator.out_factor],
      ["batch-norm epsilon of the generator", config.generator.norm_epsilon],
      ["training steps", f"{step:,}"],
      ["batch size", config.train.batch_size],
      ["seed", config.seed],
    ],
  )


def _chains(config: ml_collections.ConfigDict) -> str:
  """Returns the table of Langevin settings."""
  plans = chains.training_plan(config), chains.evaluation_plan(config)
  columns = [
    chains.record(plan.settings)
    | {"init_scale_z": plan.init_scale_z, "init_scale_y": plan.init_scale_y}
    for plan in plans
  ]
  rows = [[f"`{name}`", *(x[name] for x in columns)] for name in columns[0]]
  return _table(["setting", "training", "evaluation"], rows)


def _figures(figures: dict[str, Any] | None) -> str:
  """Returns the figures of an evaluation with their protocol."""
  if figures is None:
    return "These weights have not been evaluated here."
  try:
    table = evaluation.table(figures)
    protocol = [
      [f"`{name}`", f"`{json.dumps(value)}`"]
      for name, value in figures["protocol"].items()
    ]
  # What a run writes there passes.
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise errors.UserError(
      "evaluation.json of the run does not hold what an evaluation writes "
      f"({type(error).__name__}: {error}). Evaluate the run again, or delete "
      "the file."
    ) from error
  return (
    f"```text\n{table}\n```\n\nThis is their protocol:\n\n"
    f"{_table(['field', 'value'], protocol)}"
  )
