"""Searches the step size and the length of DDLS on few images of an SN-GAN.

python -m experiments.ddls_search --workdir=runs/digits_sngan --out=FILE.json

The workdir is that of an SN-GAN run, or a release of one. Each pair of a length
and a step size draws config.sample.num_images images, as --mode=sample does,
and the pair with the smallest Frechet distance to the training images is the
best. The seed is that of the run plus 1, so that an evaluation draws other
images than those that the choice was made by. Other arguments are fields, such
as --config.sample.num_images=500 or --config.metrics.inception=FILE.

A pair costs num_images * length gradients through discriminator and generator.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from hatebm_jax import config_flag, errors, evaluation, metrics, sample

_MAX_SEED = 2**31 - 1
_FIGURE = metrics.all_figures()["frechet_distance"]


def draw(
  restored: sample.Restored, num_steps: int, step_size: float
) -> np.ndarray:
  """Draws images by DDLS.

  Args:
    restored: SN-GAN that was restored with its discriminator.
    num_steps: Number of Langevin steps, one gradient each.
    step_size: Step size epsilon of z.

  Returns:
    The images, uint8 `[num_images, height, width, channels]`.
  """
  config = restored.config.copy_and_resolve_references()
  with config.unlocked():
    config.ddls.num_steps, config.ddls.step_size = num_steps, step_size
  return sample.draw(restored._replace(config=config)).samples


def search(
  restored: sample.Restored,
  reference: evaluation.Reference,
  lengths: Iterable[int],
  step_sizes: Iterable[float],
) -> dict[str, Any]:
  """Measures every pair of a length and a step size.

  Args:
    restored: SN-GAN that was restored with its discriminator.
    reference: Images to compare with.
    lengths: Numbers of Langevin steps.
    step_sizes: Step sizes epsilon of z.

  Returns:
    A dictionary of `protocol`; `points`, each with `num_steps`, `step_size` and
    `frechet_distance`; and `best`, the point with the smallest distance. The
    first point, of 0 steps, is the generator alone.
  """

  def point(num_steps, step_size):
    distance = reference.distance(draw(restored, num_steps, step_size))
    return {
      "num_steps": num_steps,
      "step_size": step_size,
      "frechet_distance": distance,
    }

  tried = [point(*pair) for pair in itertools.product(lengths, step_sizes)]
  record = sample.settings(restored)
  del record["ddls"]
  record["num_images"] = restored.config.sample.num_images
  return {
    "protocol": record | reference.protocol,
    "points": [point(0, 0.0), *tried],
    "best": min(tried, key=lambda found: found["frechet_distance"]),
  }


def table(found: dict[str, Any]) -> str:
  """Returns a search as a table in Markdown, a row for each length."""
  network = found["protocol"]["network"]
  (start, *points), best = found["points"], found["best"]
  distances = {
    (x["num_steps"], x["step_size"]): x["frechet_distance"] for x in points
  }
  lengths = dict.fromkeys(x["num_steps"] for x in points)
  sizes = dict.fromkeys(x["step_size"] for x in points)
  text = lambda value: _FIGURE.text(value, network)
  lines = [
    f"| {network} | {' | '.join(f'eps {size:g}' for size in sizes)} |",
    "|---" * (len(sizes) + 1) + "|",
    *(
      f"| {n} steps | {' | '.join(text(distances[n, e]) for e in sizes)} |"
      for n in lengths
    ),
    "",
    f"The generator alone has {text(start['frechet_distance'])}. Each figure "
    f"is of {found['protocol']['num_images']:,} images. The best: "
    f"--config.ddls.num_steps={best['num_steps']} "
    f"--config.ddls.step_size={best['step_size']:g}",
  ]
  return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
  """Searches, prints the table and writes the file.

  Args:
    arguments: Arguments of the command; None takes those of the process.
  """
  numbers = lambda kind: lambda text: [kind(x) for x in text.split(",")]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=numbers(int), default=[20, 40, 80])
  parser.add_argument(
    "--step_sizes", type=numbers(float), default=[0.03, 0.1, 0.3]
  )
  args, fields = parser.parse_known_args(arguments)
  try:
    config = config_flag.load([f"--config={args.workdir}", *fields])
    with config.unlocked():
      config.seed = (config.seed + 1) % _MAX_SEED
      config.ddls.num_steps = max(args.steps)
    restored = sample.restore(config, args.workdir.absolute(), given=["seed"])
    reference = evaluation.load_reference(restored.config)
    found = search(restored, reference, args.steps, args.step_sizes)
  except errors.UserError as error:
    sys.exit(f"error: {error}")
  print(table(found))
  args.out.parent.mkdir(parents=True, exist_ok=True)
  args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  main()
