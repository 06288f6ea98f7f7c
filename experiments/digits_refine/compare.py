"""Refinement beside DDLS on the same SN-GAN, as a digits judge sees them.

python -m experiments.digits_refine.compare --sngan=runs/digits_sngan \
  --refine=runs/digits_refine --out=FILE.json

DDLS takes as many gradients as the refinement's chains of evaluation, which
need two gradients per step, in z and in y. No step size of DDLS is published
for digits. Several are tried, and the best one counts; it is chosen by these
very figures, in favour of DDLS.
"""

import argparse
import json
import pathlib

from experiments import ddls_search
from hatebm_jax import chains, evaluation, images, sample
from hatebm_jax.run import files, workdir

_STEP_SIZES = (0.01, 0.03, 0.1, 0.2, 0.3)


def main() -> None:
  """Prints the table and writes figures and grids."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--sngan", type=pathlib.Path, required=True)
  parser.add_argument("--refine", type=pathlib.Path, required=True)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  args = parser.parse_args()
  restored = sample.restore(
    workdir.read_config(args.refine), args.refine.absolute()
  )
  config = restored.config
  drawn = sample.draw(restored)
  # A Langevin step takes one gradient for z and one for y.
  gradients = 2 * config.evaluate.num_steps
  of_gan = workdir.read_config(args.sngan)
  of_gan.sample.num_images = config.sample.num_images
  of_gan.ddls.num_steps = gradients
  gan = sample.restore(of_gan, args.sngan.absolute())
  sets = {"SN-GAN": drawn.generated, "Hat EBM": drawn.samples}
  for step_size in _STEP_SIZES:
    found = ddls_search.draw(gan, gradients, step_size)
    sets[f"DDLS, eps {step_size}"] = found
  result = {
    "num_gradients": gradients,
    "langevin": chains.record(chains.evaluation_plan(config).settings),
    **evaluation.measure_sets(config, {k: [v] for k, v in sets.items()}),
  }
  print(evaluation.table(result))
  args.out.write_text(json.dumps(result, indent=2) + "\n")
  for name, samples in sets.items():
    stem = name.lower().replace(" ", "_").replace(",", "")
    picture = args.out.with_name(f"{args.out.stem}_{stem}.png")
    files.write_png(picture, images.grid(samples[:100]))


if __name__ == "__main__":
  main()
