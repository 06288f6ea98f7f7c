"""Lays out the figures of an evaluation for the console."""

from typing import Any

from hatebm_jax import metrics
from hatebm_jax.evaluation import checkpoint_curve
from hatebm_jax.metrics import inception, ood, recognised_digits
from hatebm_jax.metrics.metric import Figure
from hatebm_jax.run import workdir

_AUROC = ood.FIGURES[0]
# Few chains give noisy distances, so a small difference is no warning.
_TOO_LONG = 1.1


def table(figures: dict[str, Any]) -> str:
  """Returns the figures of an evaluation as text.

  Args:
    figures: Content of evaluation.json, `Result.figures`.
  """
  if figures["sets"]:
    lines = _image_lines(figures["sets"], figures["protocol"])
  else:
    lines = [
      "There are no figures of images, because no network for these images "
      "ships with the package. FID needs the Inception network of 2015: "
      f"--config.metrics.inception=FILE. {inception.WHERE}"
    ]
  if "ood" in figures:
    lines += _ood_lines(figures["ood"])
  if "chains" in figures:
    lines += _chain_lines(figures["chains"])
    lines += _temperature_lines(figures["chains"].get("temperatures", ()))
  return "\n".join(lines)


def curve_table(curve: dict[str, Any]) -> str:
  """Returns the figures of all checkpoints of a run as text.

  Args:
    curve: Content of evaluation_checkpoints.json.
  """
  best, figure = curve["best"], metrics.all_figures()["frechet_distance"]
  network = best["network"]
  rows = [["step", "weights", network]]
  for point in curve["points"]:
    found = checkpoint_curve.distance(point)
    cells = [
      str(point["step"]),
      point["weights"],
      _cell(found, figure, network),
    ]
    rows.append(cells)
  distance = figure.text(best["frechet_distance"], network)
  return "\n".join(
    [
      *_aligned(rows),
      f"Best: {best['weights']} weights of step {best['step']}, {network} "
      f"{distance} by {best['num_images']} images. It is the smallest of "
      f"{len(curve['points'])} figures: measure this checkpoint again with "
      "--config.sample.checkpoint and another seed before you report it.",
    ]
  )


def _image_lines(sets: dict[str, Any], protocol: dict[str, Any]) -> list[str]:
  """Lays out the figures of sets of images."""
  network = protocol["network"]
  columns = [
    figure
    for figure in metrics.all_figures().values()
    if figure.name in next(iter(sets.values()))
  ]
  titles = [figure.title or network for figure in columns]
  rows = [["", "images", *titles]]
  for name, found in sets.items():
    cells = [_cell(found.get(x.name), x, network) for x in columns]
    label = workdir.SET_LABELS.get(name, name)
    rows.append([label, str(found["num_images"]), *cells])
  return [*_preamble(protocol), *_aligned(rows), *_size_lines(sets)]


def _size_lines(sets: dict[str, Any]) -> list[str]:
  """Says that held-out images which are fewer or more do not compare."""
  if "held_out" not in sets:
    return []
  num_images = sets["held_out"]["num_images"]
  if all(found["num_images"] == num_images for found in sets.values()):
    return []
  return [
    "A Frechet distance of fewer images is larger, so that of the "
    f"{num_images} held-out images compares only with that of as many samples."
  ]


def _preamble(protocol: dict[str, Any]) -> list[str]:
  """Explains the columns."""
  count = protocol["num_reference"] or "an unknown number of"
  images = f"{protocol['split']} images" if protocol["split"] else "images"
  line = f"{protocol['network']}: Frechet distance to {count} {images} "
  if protocol["network"] == inception.NAME:
    lines = [f"{line}in the features of the Inception network of 2015."]
  else:
    lines = [f"{line}in the features of a small network; this is not FID."]
  if "judge_accuracy" in protocol:
    lines.append(
      "Recognised: share of the images of whose digit a classifier is over "
      f"{recognised_digits.SURE:.0%} sure. It classifies "
      f"{protocol['judge_accuracy']:.1%} of held-out digits correctly."
    )
  return lines


def _cell(found: dict[str, Any] | None, figure: Figure, network: str) -> str:
  """Returns a mean and its spread; an empty string if there is none."""
  if found is None:
    return ""
  text = figure.text(found["mean"], network)
  if found["std"] is None:
    return text
  return f"{text} +- {figure.text(found['std'], network)}"


def _aligned(rows: list[list[str]]) -> list[str]:
  """Returns lines whose columns are flush right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True))
    for row in rows
  ]


def _ood_lines(found: dict[str, Any]) -> list[str]:
  """Lays out the AUROC of all scores, a line for each score."""
  sets = found["sets"]
  quality = found["jpeg_quality"]
  encoded = f"; both sides as JPEGs of quality {quality}" if quality else ""
  lines = [
    f"{_AUROC.title} of {found['in_distribution']} against other sets (with a "
    f"95 % interval{encoded}); trivial scores in their better direction:"
  ]
  rows = [["", *(f"{x}, {one['resized_to']} px" for x, one in sets.items())]]
  names = dict.fromkeys(x for one in sets.values() for x in one["scores"])
  for name in names:
    cells = [_auroc_cell(one["scores"].get(name)) for one in sets.values()]
    rows.append([name.replace("_", " "), *cells])
  lines += _aligned(rows)
  if not all(one["num_held_out"] for one in sets.values()):
    lines.append(
      "Typicality was not measured, because it needs 100 test images that are "
      "not scored. A lower config.ood.num_images leaves more of them."
    )
  return lines


def _auroc_cell(rates: dict[str, Any] | None) -> str:
  """Returns an AUROC and its interval; an empty string if there is none."""
  if rates is None:
    return ""
  value, low, high = (
    _AUROC.text(rates[_AUROC.name][part]) for part in ("value", "low", "high")
  )
  return f"{value} ({low} to {high})"


def _chain_lines(found: dict[str, Any]) -> list[str]:
  """Lays out the figures of parallel chains."""
  shown = lambda value: "none" if value is None else f"{value:.3g}"
  line = (
    f"{found['num_chains']} chains of {found['num_steps']} Langevin steps "
    f"({found['training_steps']} in training): effective sample size "
    f"{shown(found['ess'])}, R-hat {shown(found['r_hat'])}, "
    f"{found['stuck']} stuck, energy gap {shown(found['energy_gap'])}"
  )
  return [line, *_length_lines(found)]


def _length_lines(found: dict[str, Any]) -> list[str]:
  """Says after how many steps the chains are best, and warns of longer ones."""
  distances = {x["step"]: x["frechet_distance"] for x in found["curve"]}
  # The frame that is nearest to the length of the chains of sampling.
  num_steps, best = found["sampling_steps"], found["best_steps"]
  sampled = min(distances, key=lambda step: abs(step - num_steps))
  if best is None or distances[sampled] is None:
    return []
  lines = [
    f"Distance of these {found['num_chains']} chains: "
    f"{distances[sampled]:.3g} after the {num_steps} steps of "
    f"config.evaluate.num_steps, {distances[best]:.3g} after {best}, where it "
    "is smallest."
  ]
  if best < num_steps and distances[sampled] > _TOO_LONG * distances[best]:
    lines.append(
      f"warning: config.evaluate.num_steps={num_steps} is too long for this "
      f"run. Measure it with --config.evaluate.num_steps={max(1, best)} too."
    )
  return lines


def _temperature_lines(found: list[dict[str, Any]]) -> list[str]:
  """Lays out what chains do at several temperatures, a line for each."""
  shown = lambda value: "none" if value is None else f"{value:.3g}"
  lines = [
    f"At temperature {one['temperature']:g} a step drifts by "
    f"{shown(one['drift_norm_y'])} (noise {shown(one['noise_norm_y'])}, clip "
    f"{shown(one['max_drift_y'])}, {one['clip_rate_y']:.0%} clipped), energy "
    f"gap {shown(one['energy_gap'])}: "
    f"{'plausible' if one['plausible'] else 'not plausible'}."
    for one in found
  ]
  return lines
