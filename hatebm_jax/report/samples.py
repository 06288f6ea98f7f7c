"""Section of a report about the newest samples."""

from collections.abc import Iterator

from etils import epath

from hatebm_jax.report import formatting, page
from hatebm_jax.run import sample_files

_CAPTIONS = {
  "grid": "Samples: G(z) + y at the end of the chains.",
  "generator": "Images of the generator alone, G(z). In a run with a hat, the "
  "same chains start there.",
  "paths": "Sampling paths. Each row is a chain, from its start G(z) + y on "
  "the left to its end on the right, at evenly spaced Langevin steps.",
  "split": "Parts of samples. Each row is a chain: G(z), the residual y, and "
  "their sum, the sample. y is gray where it is zero. It is scaled so that the "
  "largest of all its values is black or white.",
  "reconstructions": "Pairs, five in a row: an image of the test split, and to "
  "its right the same image after encoder and decoder.",
}

_GOLDEN = "Golden samples, which were drawn when the release was made."


def section(path: epath.Path) -> str:
  """Shows the pictures of the newest training step that has samples.

  Args:
    path: Path of the workdir.
  """
  folder = path / sample_files.FOLDER
  found = []
  for file in page.png_files(folder):
    parsed = sample_files.parse(file.stem)
    if parsed and parsed[1].startswith("_"):
      found.append((parsed[0], parsed[1][1:], file))
  if not found:
    command = formatting.command(path, "sample")
    return page.hint("There are no samples yet. Draw some:", command)
  newest = max(name.step for name, *_ in found)
  order = [*_CAPTIONS, *sorted(kind for _, kind, _ in found)]
  found = [entry for entry in found if entry[0].step == newest]
  found.sort(key=lambda entry: order.index(entry[1]))
  parts = []
  names = {entry[0] for entry in found}
  for name in sorted(names, key=lambda name: (name.weights, name.number)):
    figures = [
      page.figure(picture, _CAPTIONS.get(kind, kind), _CAPTIONS.get(kind, kind))
      for name_of, kind, file in found
      if name_of == name and (picture := page.png(file, page.WIDTH))
    ]
    title = f"With the {name.weights} weights of training step {newest:,}"
    if name.number > 1:
      title += f", settings {name.number}"
    parts += [page.heading(title), *_settings(folder, name)]
    parts.append(page.grid(figures))
  return "\n".join(parts)


def of_release(path: epath.Path) -> str:
  """Shows the golden samples of a release, and those that were drawn since.

  Args:
    path: Path of the release.
  """
  picture = page.png(path / "samples.png", page.WIDTH)
  golden = page.figure(picture, _GOLDEN, _GOLDEN) if picture else ""
  return golden + section(path)


def _settings(folder: epath.Path, name: sample_files.Name) -> Iterator[str]:
  """Yields the settings of a file of images, if it has a record."""
  record = sample_files.read_record(folder / f"{name.stem()}.npz")
  if record:
    chain = record.get("langevin") or record.get("ddls")
    entries = {"seed": record.get("seed")}
    entries |= chain if isinstance(chain, dict) else {}
    text = ", ".join(
      f"{key.replace('_', ' ')} {value}" for key, value in entries.items()
    )
    yield page.note(f"{name.stem()}.npz: {text}.")
