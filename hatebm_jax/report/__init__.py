"""One HTML page of a run: `python -m hatebm_jax.report DIR`.

It writes DIR/report.html, which needs nothing beside it: settings, curves,
grids over time, the newest samples and the figures of evaluation.json. A run
may still be training.
"""

import argparse
import contextlib
import json
import math
import pathlib
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from hatebm_jax import errors
from hatebm_jax.report import curves, page
from hatebm_jax.run import divergence, workdir

_MAX_STEPS = 6  # of a row of grids
_GRID_WIDTH = 560  # pixels: 8 images of 64 and their margins
_PICTURE_WIDTH = 1_100  # pixels: about the width of the page

_GRIDS = {
  "data": "training images of that step's batch, as the networks see them",
  "generator": "images of the generator, G(z)",
  "hat": "samples: G(z) + y at the end of the chains",
  "bank": "images of the bank that the generator learns from",
  "reconstruction": "the training images above, encoded and decoded",
  "noise": "decoded noise: G(z) of z drawn from N(0, I)",
}

_SAMPLES = {
  "grid": "Samples: G(z) + y at the end of the chains.",
  "generator": "The generator alone, G(z); of a run with a hat, where the same "
  "chains start.",
  "paths": "Sampling paths: a row a chain, from its start G(z) + y on the left "
  "to its end on the right, in even numbers of Langevin steps.",
  "split": "What samples are made of, a row a chain: G(z), the residual y, and "
  "their sum, the sample. y is gray where it is zero, and scaled so that the "
  "largest of all its values is black or white.",
  "reconstructions": "Pairs, five in a row: an image of the test split, and "
  "right of it what encoder and decoder make of it.",
}

# Column titles, and the factor that a figure is shown with.
_FIGURES = {
  "frechet_distance": ("", 1),  # its title is the protocol's network
  "kid": ("KID ↓", 1),
  "inception_score": ("inception score ↑", 1),
  "precision": ("precision ↑", 1),
  "recall": ("recall ↑", 1),
  "density": ("density ↑", 1),
  "coverage": ("coverage ↑", 1),
  "recognised": ("recognised ↑, %", 100),
  "rarest": ("rarest digit ↑, %", 100),
}

_OF_DIGITS = (
  "Recognised: share of the images of whose digit a classifier is sure. Rarest "
  "digit: smallest share of the images that any digit gets; 10 % at best."
)

_RATES = {"auroc": "AUROC ↑", "aupr": "AUPR ↑", "fpr95": "FPR at 95 % TPR ↓"}

_CHAINS = {
  "num_chains": "chains",
  "num_steps": "Langevin steps of each",
  "training_steps": "Langevin steps in training",
  "ess": "effective sample size of the energy, second half",
  "r_hat": "R-hat of the energy, second half; 1 at best",
  "stuck": "chains that do not move",
  "energy_gap": "H(data) - H(samples)",
  "drift_norm_y": "drift of y, L2 norm a step",
  "drift_norm_z": "drift of z, L2 norm a step",
}

_EVALUATION_PICTURES = {
  "ood": (
    "evaluation_ood.png",
    "Histograms of the energy: in-distribution images beside each other set. "
    "Where they overlap, the energy cannot tell them apart.",
  ),
  "chains": (
    "evaluation_chains.png",
    "The energy of each chain and, where it is measured, the Fréchet distance "
    "of all, against the Langevin step. Horizontal line: mean energy of the "
    "data; dashed: length of the chains in training.",
  ),
  "long_run": (
    "evaluation_long_run.png",
    "Long run: a row a chain, a column a Langevin step of the figures above, "
    "from the start on the left to the end on the right.",
  ),
  "nearest": (
    "evaluation_nearest.png",
    "A row a sample, with the training images nearest to it on its right, "
    "nearest first: the copy of a training image would stand beside itself.",
  ),
}


def make(path: pathlib.Path) -> str:
  """Returns the page of a workdir's run.

  Raises:
    WorkdirError: if the workdir holds no run, or a file of it is broken.
  """
  config = workdir.read_config(path).to_dict()
  lines = workdir.read_metrics(path)
  rollbacks = divergence.rollbacks(path)
  result = workdir.read_evaluation(path)
  with _reading(path / "config.json"):
    heading = _heading(config)
    introduction = _introduction(path, config, lines)
    settings = _settings(config)
  with _reading(path / workdir.EVALUATION):
    evaluation = _evaluation(path, result)
  sections = {
    "Settings": settings,
    "Curves": _curves(path, lines, rollbacks),
    "Rollbacks": _rollbacks(rollbacks),
    "Grids over time": _grids(path / "images"),
    "Samples": _samples(path),
    **evaluation,
  }
  return page.document(
    title=f"{heading}: {path.name}",
    heading=heading,
    introduction=introduction,
    sections={name: body for name, body in sections.items() if body},
  )


def write(path: pathlib.Path) -> pathlib.Path:
  """Writes DIR/report.html and returns its path; raises as `make`."""
  file = path / "report.html"
  workdir.write_atomic(file, make(path))
  return file


@contextlib.contextmanager
def _reading(file: pathlib.Path) -> Iterator[None]:
  """Turns what a file of another structure leads to into one message."""
  try:
    yield
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    raise workdir.WorkdirError(
      f"{file} does not hold what a run writes there "
      f"({type(error).__name__}: {error}). Restore it from a copy, or write it "
      "anew."
    ) from error


def _heading(config: dict[str, Any]) -> str:
  source = config.get("data", {}).get("source", "unknown data")
  return f"{config.get('objective', 'unknown objective')} on {source}"


def _command(path: pathlib.Path, mode: str) -> str:
  """Returns the command that makes what is missing."""
  return (
    "python -m hatebm_jax.main --config=configs/NAME.py "
    f"--workdir={shlex.quote(str(path))} --mode={mode}"
  )


def _introduction(
  path: pathlib.Path,
  config: dict[str, Any],
  lines: list[dict[str, float]],
) -> str:
  """Says which run this is and how far it has come."""
  trained = max((line["step"] for line in lines), default=0)
  planned = config.get("train", {}).get("num_steps", 0)
  return (
    f"<p>Run <code>{page.text(path.name)}</code>: {trained:,} of {planned:,} "
    f"training steps, seed {page.text(config.get('seed'))}.</p>"
  )


def _settings(config: dict[str, Any]) -> str:
  """Lays the config out, a group after the other."""
  show = lambda value: json.dumps(value, ensure_ascii=False)
  groups = {"run": {}}
  for name, value in config.items():
    if isinstance(value, dict):
      groups[name] = {field: show(x) for field, x in value.items()}
    else:
      groups["run"][name] = show(value)
  return page.details("config.json", page.grouped_table(groups))


def _curves(
  path: pathlib.Path,
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
      f"{_number(last[name])} at step {last['step']:,}."
    )
    figures.append(page.figure(page.svg(curves.svg(lines, name, marks)), alt))
  if not figures:
    return page.hint("Nothing logged yet:", _command(path, "train"))
  marked = " Dashed lines: rollbacks." if marks else ""
  return page.note(
    f"Means over the training steps between two logs.{marked}"
  ) + page.grid(figures)


def _rollbacks(rollbacks: list[dict[str, Any]]) -> str:
  """Tabulates where training diverged and what it went back to."""
  if not rollbacks:
    return ""
  rows = [
    [_number(x["step"]), _number(x["to"]), x["rule"], _number(x["value"])]
    for x in rollbacks
  ]
  head = ["diverged at step", "went back to step", "rule", "value"]
  return page.table(head, rows, "Recorded in rollbacks.json.")


def _grids(folder: pathlib.Path) -> str:
  """Shows what training wrote, a row a kind of image."""
  files = {}
  for file in sorted(folder.glob("*.png")):
    if match := re.fullmatch(r"(\d+)_(.+)", file.stem):
      files.setdefault(match[2], []).append((int(match[1]), file))
  # In the order of the list above; others come last.
  order = [*_GRIDS, *sorted(files)]
  parts = []
  for name in sorted(files, key=order.index):
    title = f"{name} ({_GRIDS[name]})" if name in _GRIDS else name
    shown = [
      page.figure(picture, f"Grid of {title}, step {step:,}", f"step {step:,}")
      for step, file in _evenly(files[name])
      if (picture := page.png(file, _GRID_WIDTH))
    ]
    parts += [page.heading(title), page.grid(shown, narrow=True)]
  return "\n".join(parts)


def _evenly(items: list[Any]) -> list[Any]:
  """Picks up to `_MAX_STEPS` of a list, the first and the last among them."""
  if len(items) <= _MAX_STEPS:
    return items
  stride = (len(items) - 1) / (_MAX_STEPS - 1)
  return [items[round(i * stride)] for i in range(_MAX_STEPS)]


def _samples(path: pathlib.Path) -> str:
  """Shows the pictures of the newest step that samples were drawn from."""
  found = []
  for file in sorted((path / "samples").glob("*.png")):
    if match := re.fullmatch(r"(\d+)_(raw|averaged)_(.+)", file.stem):
      found.append((int(match[1]), match[2], match[3], file))
  if not found:
    return page.hint("No samples yet:", _command(path, "sample"))
  newest = max(step for step, *_ in found)
  order = [*_SAMPLES, *sorted(name for _, _, name, _ in found)]
  found = [entry[1:] for entry in found if entry[0] == newest]
  found.sort(key=lambda entry: order.index(entry[1]))
  parts = []
  for weights in sorted({entry[0] for entry in found}):
    figures = [
      page.figure(picture, _SAMPLES.get(name, name), _SAMPLES.get(name, name))
      for weights_of, name, file in found
      if weights_of == weights and (picture := page.png(file, _PICTURE_WIDTH))
    ]
    title = f"With the {weights} weights of training step {newest:,}"
    parts += [page.heading(title), page.grid(figures)]
  return "\n".join(parts)


def _evaluation(
  path: pathlib.Path, result: dict[str, Any] | None
) -> dict[str, str]:
  """Returns the sections of evaluation.json by their titles."""
  command = _command(path, "evaluate")
  if result is None:
    return {"Evaluation": page.hint("No evaluation yet:", command)}
  if "protocol" not in result:
    return {
      "Evaluation": page.hint(
        "evaluation.json was written by an older version. Evaluate again:",
        command,
      )
    }
  sections = {"Evaluation": _figures(result) + _protocol_list(result)}
  if "ood" in result:
    sections["Out-of-distribution detection"] = _ood(path, result)
  if "chains" in result:
    sections["Chains"] = _chains(path, result)
  return sections


def _figures(result: dict[str, Any]) -> str:
  """Lays out how good the images are."""
  protocol, sets = result["protocol"], result["sets"]
  if not sets:
    return page.note(
      "No figures of images: evaluated without a network for such images."
    )
  names = [key for key in _FIGURES if any(key in x for x in sets.values())]
  titles = {key: title for key, (title, _) in _FIGURES.items()}
  titles["frechet_distance"] = f"{protocol['network']} ↓"
  head = ["", *(workdir.SET_LABELS.get(name, name) for name in sets)]
  rows = [["images", *(_number(x["num_images"]) for x in sets.values())]]
  rows += [
    [
      titles[key],
      *(_spread(x.get(key), _FIGURES[key][1]) for x in sets.values()),
    ]
    for key in names
  ]
  return "\n".join(
    [
      page.table(head, rows, _reference(protocol)),
      page.note(
        "Mean ± standard deviation over the repeats of the protocol; a figure "
        "without ± was measured once. ↓: lower is better; ↑: higher. The "
        "distance of fewer images is biased upwards."
      ),
      *([page.note(_OF_DIGITS)] if "recognised" in names else []),
    ]
  )


def _protocol_list(result: dict[str, Any]) -> str:
  """Lists all that the figures were made with."""
  seconds = {"seconds of the evaluation": _number(result.get("seconds"))}
  entries = _protocol(result["protocol"]) | seconds
  return "\n" + page.heading("Protocol") + "\n" + page.definitions(entries)


def _reference(protocol: dict[str, Any]) -> str:
  """Says what the distances are to."""
  network = protocol["network"]
  network_is = "the Inception network of 2015"
  if network != "FID":
    network_is = "a small network; it is no FID"
  count = protocol["num_reference"]  # None: of a file that does not say it
  images = f"{count:,} images" if count else "images"
  of = f"{protocol['data']} {protocol['split']}"
  if protocol["statistics"]:
    of = f"the moments of {protocol['statistics']['file']}"
  return (
    f"{network}: Fréchet distance to {images}, {of}, in the features of "
    f"{network_is}."
  )


def _protocol(protocol: dict[str, Any]) -> dict[str, str]:
  """Returns all that the figures were made with, by readable names."""
  shown = {}
  for key, value in protocol.items():
    name = key.replace("_", " ").replace("hatebm jax", "hatebm_jax")
    if isinstance(value, dict):
      inner = _protocol(value).items()
      shown |= {f"{name}: {field}": entry for field, entry in inner}
    elif value is None:
      shown[name] = "none"
    elif isinstance(value, bool):
      shown[name] = "yes" if value else "no"
    else:
      shown[name] = str(value)
  return shown


def _protocol_line(protocol: dict[str, Any]) -> str:
  """Returns the protocol as a paragraph, for the tables further down."""
  entries = (f"{name} {value}" for name, value in _protocol(protocol).items())
  return page.note(f"Protocol: {'; '.join(entries)}.")


def _ood(path: pathlib.Path, result: dict[str, Any]) -> str:
  """Lays out how well scores tell other data from the run's."""
  ood = result["ood"]
  parts = [
    page.note(
      "Intervals are 95 % bootstrap intervals. A baseline knows no network: "
      "where it does as well as the energy, the energy shows no more than it."
    )
  ]
  for name, found in ood["sets"].items():
    rows = [
      [
        score if score == "energy" else f"{score.replace('_', ' ')} (baseline)",
        "higher" if values["higher_is_out"] else "lower",
        *(_interval(values[rate]) for rate in _RATES),
      ]
      for score, values in found["scores"].items()
    ]
    caption = (
      f"{name} ({found['num_out']:,} images) against {ood['in_distribution']} "
      f"({found['num_in']:,}), at {found['resized_to']} pixels"
    )
    head = ["score", "out is", *_RATES.values()]
    parts.append(page.table(head, rows, caption))
  parts += [_protocol_line(result["protocol"])]
  return "\n".join([*parts, *_evaluation_picture(path, "ood")])


def _chains(path: pathlib.Path, result: dict[str, Any]) -> str:
  """Lays out what parallel chains do."""
  chains = result["chains"]
  rows = [
    (title, _number(chains[key]))
    for key, title in _CHAINS.items()
    if key in chains
  ]
  parts = [page.table(["of the chains", "value"], rows, "Parallel chains")]
  if curve := chains.get("curve"):
    names = list(curve[0])
    network = result["protocol"]["network"] or "Fréchet distance"
    titles = {"step": "Langevin step", "frechet_distance": network}
    head = [titles.get(name, name.replace("_", " ")) for name in names]
    points = [[_number(point.get(name)) for name in names] for point in curve]
    table = page.table(head, points, "Means over the chains")
    parts.append(page.details("Figures of the curves", table))
  parts.append(_protocol_line(result["protocol"]))
  for name in ("chains", "long_run", "nearest"):
    parts += _evaluation_picture(path, name)
  return "\n".join(parts)


def _evaluation_picture(path: pathlib.Path, name: str) -> Iterator[str]:
  """Yields a picture of the evaluation, if there is one."""
  file, caption = _EVALUATION_PICTURES[name]
  if picture := page.png(path / file, _PICTURE_WIDTH):
    yield page.figure(picture, caption, caption)


def _number(value: float | str | None) -> str:
  """Shows a number, or what stands in its place; None: there is none."""
  if value is None or isinstance(value, str):
    return value or "-"
  return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _spread(figure: dict[str, Any] | None, factor: int = 1) -> str:
  """Shows a mean to the second digit of its standard deviation."""
  if figure is None or figure["mean"] is None:
    return "-"
  mean, std = factor * figure["mean"], figure["std"]
  if std is None:
    return f"{mean:#.4g}".rstrip(".")
  std *= factor
  if not 0 < std < math.inf:
    return f"{mean:.4g} ± {std:.2g}"
  decimals = max(0, 1 - math.floor(math.log10(std)))
  return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _interval(rate: dict[str, float]) -> str:
  """Shows a rate and its interval."""
  return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"


def main(argv: list[str] | None = None) -> int:
  """Writes the page; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.report",
    description="Write DIR/report.html: one page of a run.",
  )
  parser.add_argument("dir", type=pathlib.Path, help="workdir of the run")
  path = parser.parse_args(argv).dir.absolute()
  try:
    file = write(path)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
  return 0


if __name__ == "__main__":
  sys.exit(main())
