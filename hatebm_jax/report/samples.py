"""Section of a report about the newest samples."""

import re

from etils import epath

from hatebm_jax.report import formatting, page

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


def section(path: epath.Path) -> str:
  """Shows the pictures of the newest training step that has samples.

  Args:
    path: Path of the workdir.
  """
  found = []
  for file in page.png_files(path / "samples"):
    if match := re.fullmatch(r"(\d+)_(raw|averaged)_(.+)", file.stem):
      found.append((int(match[1]), match[2], match[3], file))
  if not found:
    command = formatting.command(path, "sample")
    return page.hint("There are no samples yet. Draw some:", command)
  newest = max(step for step, *_ in found)
  order = [*_CAPTIONS, *sorted(name for _, _, name, _ in found)]
  found = [entry[1:] for entry in found if entry[0] == newest]
  found.sort(key=lambda entry: order.index(entry[1]))
  parts = []
  for weights in sorted({entry[0] for entry in found}):
    figures = [
      page.figure(picture, _CAPTIONS.get(name, name), _CAPTIONS.get(name, name))
      for weights_of, name, file in found
      if weights_of == weights and (picture := page.png(file, page.WIDTH))
    ]
    title = f"With the {weights} weights of training step {newest:,}"
    parts += [page.heading(title), page.grid(figures)]
  return "\n".join(parts)
