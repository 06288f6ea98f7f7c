"""Refinement beside DDLS on the same SN-GAN, as a digits judge sees them.

python -m experiments.digits_refine.compare --sngan=runs/digits_sngan \
  --refine=runs/digits_refine --out=FILE.json

DDLS takes as many gradients as the refinement's chains of evaluation, which
need two gradients per step, in z and in y. No step size of DDLS is published
for digits. Several are tried, and the best one counts; it is chosen by these
very figures, in favour of DDLS.
"""

import argparse
import functools
import json
import pathlib

import jax
import numpy as np

from hatebm_jax import chains, evaluation, images, pixels, restore, sample
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import sngan
from hatebm_jax.run import files, workdir

_STEP_SIZES = (0.01, 0.03, 0.1, 0.2, 0.3)
_CHUNK = 250  # Number of chains at a time.


def draw_ddls(
  path: pathlib.Path, num_images: int, num_steps: int
) -> dict[str, np.ndarray]:
  """Draws images by DDLS from the newest checkpoint of an SN-GAN run.

  Args:
    path: Path of the run's workdir.
    num_images: Number of images, a multiple of 250.
    num_steps: Number of Langevin steps, one gradient each.

  Returns:
    The images by step size, uint8 `[num_images, height, width, channels]`.
  """
  config = workdir.read_config(path)
  # The optimizers are not read.
  trained, state, _ = restore.restore_part(
    config,
    path,
    lambda _, state: state._replace(
      generator=state.generator._replace(optimizer=(), average=()),
      discriminator=state.discriminator._replace(optimizer=(), average=()),
    ),
  )
  rng = rng_lib.stream(jax.random.key(config.seed), "sample")

  @functools.partial(jax.jit, static_argnames="step_size")
  def run(state, indices, step_size):
    return chains.run_ddls(
      trained,
      sngan.bind_discriminator(config, state),
      trained.variables(state, "raw"),
      rng_lib.per_index(rng, indices),
      num_steps,
      step_size,
    ).x_sample

  def draw(step_size):
    starts = range(0, num_images, _CHUNK)
    drawn = [run(state, np.arange(i, i + _CHUNK), step_size) for i in starts]
    return pixels.to_uint8(np.concatenate(jax.device_get(drawn)))

  return {
    f"DDLS, eps {step_size}": draw(step_size) for step_size in _STEP_SIZES
  }


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
  ddls = draw_ddls(args.sngan.absolute(), config.sample.num_images, gradients)
  sets = {"SN-GAN": drawn.generated, "Hat EBM": drawn.samples} | ddls
  result = {
    "num_gradients": gradients,
    "langevin": chains.evaluation_plan(config).settings._asdict(),
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
