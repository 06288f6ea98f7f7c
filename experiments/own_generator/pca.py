"""Puts a hat on a generator that is not ours: principal components.

python -m experiments.own_generator.pca --workdir=runs/pca

The generator is one line of NumPy and not a network: x = mean + z S V.
Training and sampling need only its `apply` and the shape of a latent.
"""

import argparse
import pathlib

import numpy as np

from hatebm_jax import data, evaluation, networks, pixels, sample, train
from hatebm_jax.configs import digits_refine

_COMPONENTS = 32


def make_generator(images: np.ndarray) -> networks.Generator:
  """Makes a generator of the Gaussian that fits the images best.

  Args:
    images: Images in [-1, 1], float32 `[n, height, width, channels]`.

  Returns:
    A generator whose latents are the coefficients of the principal components.
  """
  rows = images.reshape(len(images), -1)
  mean = rows.mean(0)
  _, scales, directions = np.linalg.svd(rows - mean, full_matrices=False)
  # A latent has unit variance along each component, so z ~ N(0, I) draws from
  # the Gaussian.
  basis = scales[:_COMPONENTS, None] * directions[:_COMPONENTS]
  basis /= np.sqrt(len(rows))

  def apply(variables, z):
    x = variables["mean"] + z @ variables["basis"]
    return x.reshape(-1, *images.shape[1:])

  return networks.Generator(
    apply, (_COMPONENTS,), variables={"mean": mean, "basis": basis}
  )


def train_and_evaluate(
  path: pathlib.Path, seed: int, hat: networks.Hat | None = None
) -> None:
  """Trains a hat on the principal components, draws samples, evaluates them.

  Args:
    path: Path of the workdir.
    seed: Seed of the run.
    hat: Hat to train; None: the hat of this package.
  """
  config = digits_refine.get_config()
  config.seed = seed
  digits = data.load_all(data.open_source(config.data, "train"))
  generator = make_generator(pixels.to_float(digits))
  if train.train(config, path, generator, hat):
    return  # A signal stopped the run. The same command resumes it.
  restored = sample.restore(config, path, generator, hat)
  drawn = sample.draw(restored)
  sample.write(restored, path, drawn)
  evaluation.write(evaluation.evaluate(restored, drawn), path)


def main() -> None:
  """Trains the hat, draws samples and evaluates them."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="Workdir of the run."
  )
  parser.add_argument("--seed", type=int, default=0, help="Seed of the run.")
  args = parser.parse_args()
  train_and_evaluate(args.workdir.absolute(), args.seed)


if __name__ == "__main__":
  main()
