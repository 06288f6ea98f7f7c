"""Measures a trained run, or images from elsewhere: evaluation.json.

Every number stands with its protocol: how many images, against which, in whose
features, drawn how, by which weights.
"""

import json
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from hatebm_jax import chains, data, errors, sample
from hatebm_jax.evaluation import image_quality as measure
from hatebm_jax.evaluation import long_chains as diagnose
from hatebm_jax.evaluation import out_of_distribution as detect
from hatebm_jax.metrics import digits_judge, frechet, inception, spaces
from hatebm_jax.run import npz, workdir

FILE = workdir.EVALUATION
REFERENCE_FILE = "evaluation_reference.npz"
_MAX_NEIGHBOURS = 50_000  # training images that samples are compared with

# Columns of the table: title and format of a figure.
_COLUMNS = {
  "frechet_distance": ("", ".3f"),  # titled by the network
  "kid": ("KID", ".4f"),
  "inception_score": ("IS", ".2f"),
  "precision": ("precision", ".3f"),
  "recall": ("recall", ".3f"),
  "density": ("density", ".3f"),
  "coverage": ("coverage", ".3f"),
  "recognised": ("recognised", ".1%"),
  "rarest": ("rarest digit", ".1%"),
}


def write(
  config: ml_collections.ConfigDict,
  path: pathlib.Path,
  restored: sample.Restored | None = None,
  drawn: sample.Drawn | None = None,
) -> dict[str, Any]:
  """Measures images, prints a table and writes evaluation.json.

  Args:
    config: of the restored run; without one, of the command.
    path: the workdir.
    restored: from `sample.restore`; None: `config.metrics.samples` names the
      images to measure.
    drawn: `sample.draw(restored)` where that is at hand.

  Returns:
    What was written.

  Raises:
    ConfigError: if there is no measure for these images, or too few of them.
    DataError: if the reference images cannot be read.
  """
  start = time.perf_counter()
  has_hat = restored is not None and restored.networks.hat is not None
  if spaces.exists(config) or not has_hat:
    result, reference = _image_figures(config, restored, drawn)
  else:
    print(
      "No figures of images: no network for these ships with the package. "
      f"--config.metrics.inception=FILE. {inception.WHERE}"
    )
    protocol = _drawn_protocol(restored) | measure.protocol(config)
    result, reference = {"protocol": protocol, "sets": {}}, None
  if has_hat:
    result |= _hat_figures(restored, path, reference)
  result["seconds"] = round(time.perf_counter() - start, 3)
  if jax.process_index() == 0:
    _write_files(result, reference, path)
  return result


def _image_figures(
  config: ml_collections.ConfigDict,
  restored: sample.Restored | None,
  drawn: sample.Drawn | None,
) -> tuple[dict[str, Any], measure.Reference]:
  """Measures images, drawn or given, against the reference."""
  space = spaces.choose(config)  # Before anything is drawn.
  if restored is None:
    sets, protocol = _given(config)
  else:
    sets, protocol = _drawn(restored, drawn), _drawn_protocol(restored)
  repeats = next(iter(sets.values()))
  protocol |= {"num_images": len(repeats[0]), "repeats": len(repeats)}
  reference = measure.load_reference(config, space)
  result = measure.image_sets(config, sets, reference)
  result["protocol"] = protocol | result["protocol"]
  return result, reference


def _hat_figures(
  restored: sample.Restored,
  path: pathlib.Path,
  reference: measure.Reference | None,
) -> dict[str, Any]:
  """Looks at what only a hat has: its energies and its chains."""
  config = restored.config
  result = {}
  if config.ood.sets:
    result["ood"] = detect.measure(restored, path)
  if config.chains.num_chains:
    train_images = data.load_images(config.data, "train", _MAX_NEIGHBOURS)
    distance = reference.distance if reference else None
    found, pictures = diagnose.measure(restored, train_images, distance)
    if jax.process_index() == 0:
      diagnose.write(path, pictures)
    result["chains"] = found
  return result


def _write_files(
  result: dict[str, Any],
  reference: measure.Reference | None,
  path: pathlib.Path,
) -> None:
  """Writes the figures and the reference's moments; prints a table."""
  text = json.dumps(result, indent=2, allow_nan=False) + "\n"
  workdir.write_atomic(path / FILE, text)
  if reference and result["protocol"]["statistics"] is None:
    frechet.save(path / REFERENCE_FILE, reference.found.moments)
  print(table(result))
  print(f"Written to {path / FILE}", flush=True)


def _drawn(
  restored: sample.Restored, drawn: sample.Drawn | None
) -> dict[str, list[np.ndarray]]:
  """Draws what `config.metrics.repeats` asks for."""
  repeats = restored.config.metrics.repeats
  _check_count(restored.config.sample.num_images, "config.sample.num_images")
  all_drawn = [drawn or sample.draw(restored)]
  all_drawn += [sample.draw(restored, repeat) for repeat in range(1, repeats)]
  # Without a hat there are no samples but the generator's images.
  names = {"samples": "hat"} if restored.networks.hat is not None else {}
  names |= {"generated": "generator"}
  return {
    label: [getattr(one, name) for one in all_drawn]
    for name, label in names.items()
  }


def _check_count(num_images: int, name: str) -> None:
  if num_images < 2:
    raise errors.ConfigError(
      f"{name}={num_images}: expected 2 or more, to measure how they differ."
    )


def _drawn_protocol(restored: sample.Restored) -> dict[str, Any]:
  """Returns how samples were drawn."""
  config = restored.config
  has_hat = restored.networks.hat is not None
  plan = chains.evaluation_plan(config)
  return {
    "checkpoint_step": restored.step,
    "weights": config.sample.weights,
    "seed": config.seed,
    "langevin": plan.settings._asdict() if has_hat else None,
    "init_scale_z": plan.init_scale_z,
    "init_scale_y": plan.init_scale_y if has_hat else None,
    "samples": None,
  }


def _given(
  config: ml_collections.ConfigDict,
) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]]:
  """Reads `config.metrics.samples`; returns the set and where it is from."""
  file = config.metrics.samples
  field = "config.metrics.samples"
  size = (config.data.image_size, config.data.image_size, config.data.channels)
  expected = f"an .npz with images, uint8 [n, {size[0]}, {size[1]}, {size[2]}]"
  images = npz.read(file, ("images",), f"{field}={file!r}", expected)["images"]
  if images.dtype != np.uint8 or images.shape[1:] != size:
    raise errors.ConfigError(
      f"{field}={file!r}: expected {expected}, found {images.dtype} "
      f"{images.shape}."
    )
  _check_count(len(images), f"the images of {field}")
  name = pathlib.Path(file).name
  protocol = {
    "checkpoint_step": None,
    "weights": None,
    "seed": None,
    "langevin": None,
    "init_scale_z": None,
    "init_scale_y": None,
    "samples": {"file": name, "sha256": spaces.sha256(file)},
  }
  return {"samples": [images]}, protocol


def table(result: dict[str, Any]) -> str:
  """Lays out what `measure` and `write` return, for people."""
  lines = _figure_lines(result) if result["sets"] else []
  if "ood" in result:
    lines += detect.table(result["ood"])
  if "chains" in result:
    lines += diagnose.table(result["chains"])
  return "\n".join(lines)


def _figure_lines(result: dict[str, Any]) -> list[str]:
  """Lays out the figures of sets of images."""
  sets, protocol = result["sets"], result["protocol"]
  titles = {key: title for key, (title, _) in _COLUMNS.items()}
  titles["frechet_distance"] = protocol["network"]
  columns = [key for key in _COLUMNS if key in next(iter(sets.values()))]
  rows = [["", "images", *(titles[key] for key in columns)]]
  for name, figures in sets.items():
    cells = [_cell(figures.get(key), _COLUMNS[key][1]) for key in columns]
    label = workdir.SET_LABELS.get(name, name)
    rows.append([label, str(figures["num_images"]), *cells])
  return [*_preamble(protocol), *_aligned(rows)]


def _preamble(protocol: dict[str, Any]) -> list[str]:
  """Says what the columns mean."""
  count = protocol["num_reference"] or "an unknown number of"
  of = f"{protocol['split']} images" if protocol["split"] else "images"
  lines = [f"{protocol['network']}: Frechet distance to {count} {of}"]
  if protocol["network"] == inception.NAME:
    lines[0] += " in the Inception network of 2015."
  else:
    lines[0] += " in the features of a small network; it is no FID."
  if "judge_accuracy" in protocol:
    lines.append(
      f"Recognised: a classifier, {protocol['judge_accuracy']:.1%} right on "
      f"held-out digits, is over {digits_judge.SURE:.0%} sure of the digit."
    )
  return lines


def _cell(figure: dict[str, Any] | None, form: str) -> str:
  if figure is None:
    return ""
  spread = "" if figure["std"] is None else f" +- {figure['std']:{form}}"
  return f"{figure['mean']:{form}}{spread}"


def _aligned(rows: list[list[str]]) -> list[str]:
  """Returns lines of columns that are flush right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True))
    for row in rows
  ]
