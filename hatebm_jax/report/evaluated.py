"""Sections of a report about evaluation.json: images, OOD detection, chains."""

from collections.abc import Iterator
from typing import Any

from etils import epath

from hatebm_jax import metrics
from hatebm_jax.metrics import chain_mixing, ood
from hatebm_jax.report import formatting, page
from hatebm_jax.run import workdir

_PICTURES = {
  "ood": "Histograms of the energy: in-distribution images beside each other "
  "set. Where they overlap, the energy cannot tell them apart.",
  "chains": "The energy of each chain and, if it is measured, the Fréchet "
  "distance of all chains, against the Langevin step. The horizontal line is "
  "the mean energy of the data, the dashed line the length of the training "
  "chains.",
  "long_run": "Long run. Each row is a chain, and each column a Langevin step "
  "of the figures above, from the start on the left to the end on the right.",
  "nearest": "Each row is a sample with the training images nearest to it on "
  "its right, the nearest first. A copy of a training image would stand beside "
  "that image.",
}


def sections(path: epath.Path, result: dict[str, Any] | None) -> dict[str, str]:
  """Returns the sections about evaluation.json by their titles.

  Args:
    path: Path of the workdir.
    result: Content of evaluation.json, or None if there is none.
  """
  command = formatting.command(path, "evaluate")
  if result is None:
    hint = "There is no evaluation yet. Evaluate the run:"
    return {"Evaluation": page.hint(hint, command)}
  if "protocol" not in result:
    hint = "evaluation.json was written by an older version. Evaluate again:"
    return {"Evaluation": page.hint(hint, command)}
  found = {
    "Evaluation": _failed(result) + _images(result) + _protocol_list(result)
  }
  if "ood" in result:
    found["Out-of-distribution detection"] = _ood(path, result)
  if "chains" in result:
    found["Chains"] = _chains(path, result)
  return found


def _failed(result: dict[str, Any]) -> str:
  """Names the parts of the evaluation that failed."""
  return "".join(
    page.note(f"The part {name} of the evaluation failed: {message}") + "\n"
    for name, message in result.get("failed", {}).items()
  )


def _images(result: dict[str, Any]) -> str:
  """Shows how good the images are."""
  protocol, sets = result["protocol"], result["sets"]
  if not sets and "images" in result.get("failed", {}):
    return ""
  if not sets:
    return page.note(
      "There are no figures of images: the run was evaluated without a network "
      "for such images."
    )
  figures = [
    figure
    for figure in metrics.all_figures().values()
    if any(figure.name in found for found in sets.values())
  ]
  head = ["", *(workdir.SET_LABELS.get(name, name) for name in sets)]
  rows = [
    ["images", *(formatting.number(x["num_images"]) for x in sets.values())]
  ]
  for figure in figures:
    factor = 100 if figure.percent else 1
    cells = [
      formatting.spread(x.get(figure.name), factor) for x in sets.values()
    ]
    rows.append([figure.heading(protocol["network"]), *cells])
  notes = [
    "A figure is a mean ± standard deviation over the repeats of the protocol. "
    "A figure without ± was measured once. ↓: lower is better; ↑: higher is "
    "better. The distance of fewer images is biased upwards.",
    " ".join(figure.note for figure in figures if figure.note),
  ]
  return "\n".join(
    [
      page.table(head, rows, _reference(protocol)),
      *(page.note(note) for note in notes if note),
    ]
  )


def _protocol_list(result: dict[str, Any]) -> str:
  """Lists the whole protocol of the figures."""
  seconds = {
    "seconds of the evaluation": formatting.number(result.get("seconds"))
  }
  entries = _protocol(result["protocol"]) | seconds
  return "\n" + page.heading("Protocol") + "\n" + page.definitions(entries)


def _reference(protocol: dict[str, Any]) -> str:
  """Says what the images are compared with."""
  network = protocol["network"]
  network_is = "the Inception network of 2015"
  if network != "FID":
    network_is = "a small network; this is not FID"
  count = protocol["num_reference"]  # None: the file does not say it.
  images = f"{count:,} images" if count else "images"
  of = f"{protocol['data']} {protocol['split']}"
  if protocol["statistics"]:
    of = f"the moments of {protocol['statistics']['file']}"
  return (
    f"{network}: Fréchet distance to {images}, {of}, in the features of "
    f"{network_is}."
  )


def _protocol(protocol: dict[str, Any]) -> dict[str, str]:
  """Returns the entries of a protocol by readable names."""
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
  """Returns the protocol as a paragraph, which stands below later tables."""
  entries = (f"{name} {value}" for name, value in _protocol(protocol).items())
  return page.note(f"Protocol: {'; '.join(entries)}.")


def _ood(path: epath.Path, result: dict[str, Any]) -> str:
  """Shows how well scores tell other data from the run's data."""
  found = result["ood"]
  parts = [
    page.note(
      "Intervals are 95 % bootstrap intervals. The scores of the hat have a "
      "fixed direction. A baseline needs no network and has the better of its "
      "two directions. Where a baseline does as well as the energy, the energy "
      "shows no more than the baseline."
    )
  ]
  if quality := found.get("jpeg_quality"):
    parts.append(
      page.note(f"Both sides were encoded as JPEGs of quality {quality}.")
    )
  head = ["score", "out is", *(figure.heading() for figure in ood.FIGURES)]
  for name, one in found["sets"].items():
    rows = [
      [
        score.replace("_", " ") + " (baseline)" * (score in ood.BASELINES),
        "higher" if values["higher_is_out"] else "lower",
        *(formatting.interval(values[figure.name]) for figure in ood.FIGURES),
      ]
      for score, values in one["scores"].items()
    ]
    caption = (
      f"{name} ({one['num_out']:,} images) against {found['in_distribution']} "
      f"({one['num_in']:,}), at {one['resized_to']} pixels"
    )
    parts.append(page.table(head, rows, caption))
  parts += [_protocol_line(result["protocol"])]
  return "\n".join([*parts, *_picture(path, "ood")])


def _chains(path: epath.Path, result: dict[str, Any]) -> str:
  """Shows the figures of parallel chains."""
  found = result["chains"]
  rows = [
    (figure.heading(), formatting.number(found[figure.name]))
    for figure in chain_mixing.FIGURES
    if figure.name in found
  ]
  parts = [page.table(["figure", "value"], rows, "Parallel chains")]
  if curve := found.get("curve"):
    names = list(curve[0])
    network = result["protocol"]["network"] or "Fréchet distance"
    titles = {"step": "Langevin step", "frechet_distance": network}
    head = [titles.get(name, name.replace("_", " ")) for name in names]
    points = [[formatting.number(x.get(name)) for name in names] for x in curve]
    table = page.table(head, points, "Means over the chains")
    parts.append(page.details("Figures of the curves", table))
  parts.append(_protocol_line(result["protocol"]))
  for name in ("chains", "long_run", "nearest"):
    parts += _picture(path, name)
  return "\n".join(parts)


def _picture(path: epath.Path, name: str) -> Iterator[str]:
  """Yields a picture of the evaluation if there is one."""
  if picture := page.png(path / f"evaluation_{name}.png", page.WIDTH):
    yield page.figure(picture, _PICTURES[name], _PICTURES[name])
