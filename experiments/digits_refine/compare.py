"""Refinement beside DDLS on the same SN-GAN, as a digits judge sees them.

python -m experiments.digits_refine.compare --sngan=runs/digits_sngan \
  --refine=runs/digits_refine --out=FILE.json

DDLS takes as many gradients as the refinement's chains of evaluation, which
need two a step, in z and in y. There is no published step size of DDLS for
digits: several are tried, and the best of them (chosen by these very figures,
in DDLS's favour) is what counts.
"""

import argparse
import functools
import json
import pathlib

import jax
import numpy as np

from hatebm_jax import (
  chains,
  energy,
  images,
  langevin,
  objectives,
  pixels,
  sample,
  sharding,
)
from hatebm_jax import compile as compile_lib
from hatebm_jax import evaluation as evaluate
from hatebm_jax import rng as rng_lib
from hatebm_jax.evaluation import image_quality as measure
from hatebm_jax.objectives import sngan
from hatebm_jax.run import checkpoint, workdir

_STEP_SIZES = (0.01, 0.03, 0.1, 0.2, 0.3)
_CHUNK = 250  # chains at a time


def draw_ddls(
  path: pathlib.Path, num_images: int, num_steps: int
) -> dict[str, np.ndarray]:
  """Draws images by DDLS from the newest checkpoint of an SN-GAN run.

  Args:
    path: the run's workdir.
    num_images: how many, a multiple of 250.
    num_steps: Langevin steps, a gradient each.

  Returns:
    uint8 `[num_images, height, width, channels]`, by step size.
  """
  config, mesh = workdir.read_config(path), sharding.make_mesh()
  objective = objectives.make(config, mesh)
  networks, discriminator = objective.networks, sngan.make_discriminator(config)
  with checkpoint.Checkpoints(path) as saved:
    state = saved.restore(
      saved.latest_step(), compile_lib.abstract_state(config, objective, mesh)
    )
  rng = rng_lib.stream(jax.random.key(config.seed), "sample")

  @functools.partial(jax.jit, static_argnames="step_size")
  def chains(state, indices, step_size):
    _, variables = networks.variables(state, "raw")
    scores = {"params": state.discriminator.params, "spectral": state.spectral}
    generator_fn = lambda z: networks.generator.apply(variables, z)
    discriminator_fn = lambda x: discriminator.apply(scores, x)
    rngs = rng_lib.per_index(rng, indices)
    start = langevin.init_state(
      rngs, networks.latent_shape, networks.image_shape
    )
    energy_fn = energy.ddls(discriminator_fn, generator_fn)
    z, _ = langevin.sample_latents(
      rngs, energy_fn, start.z, num_steps, step_size
    )
    return generator_fn(z)

  def draw(step_size):
    starts = range(0, num_images, _CHUNK)
    drawn = [chains(state, np.arange(i, i + _CHUNK), step_size) for i in starts]
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
  gradients = 2 * config.evaluate.num_steps  # One of z, one of y a step.
  ddls = draw_ddls(args.sngan.absolute(), config.sample.num_images, gradients)
  sets = {"SN-GAN": drawn.generated, "Hat EBM": drawn.samples} | ddls
  result = {
    "num_gradients": gradients,
    "langevin": chains.evaluation_plan(config).settings._asdict(),
    **measure.image_sets(config, {k: [v] for k, v in sets.items()}),
  }
  print(evaluate.table(result))
  args.out.write_text(json.dumps(result, indent=2) + "\n")
  for name, samples in sets.items():
    stem = name.lower().replace(" ", "_").replace(",", "")
    picture = args.out.with_name(f"{args.out.stem}_{stem}.png")
    images.write_png(picture, images.grid(samples[:100]))


if __name__ == "__main__":
  main()
