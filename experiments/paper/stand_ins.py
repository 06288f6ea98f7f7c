"""Makes images and weights that stand in for the paper's.

python -m experiments.paper.stand_ins --out=DIR --image_size=64

DIR gets `train/` and `test/` with generated images, and `inception.npz`, an
Inception network with random weights. They serve to try the commands of a row:
their figures mean nothing.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import convert
from hatebm_jax.models import inception
from hatebm_jax.run import files

_COUNTS = {"train": 48, "test": 6}


def make_images(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
  """Returns images of coloured waves, uint8 `[count, size, size, 3]`."""
  angles = rng.uniform(0, 2 * np.pi, (3, count, 1, 1, 3))
  frequency = rng.uniform(0.5, 3, (2, count, 1, 1, 3))
  axis = 2 * np.pi * np.arange(size) / size
  y, x = axis[:, None, None], axis[None, :, None]
  waves = np.sin(frequency[0] * y + frequency[1] * x + angles[0])
  return np.uint8(np.round(127.5 + 100 * waves))


def make_network(path: pathlib.Path) -> None:
  """Writes an Inception network with random weights."""
  module = inception.Inception()
  image = jnp.zeros((1, 299, 299, 3))
  shapes = jax.eval_shape(module.init, jax.random.key(0), image)
  rng = np.random.default_rng(0)

  def draw(keys, leaf):
    values = rng.normal(size=leaf.shape).astype(np.float32)
    if len(leaf.shape) > 1:
      return values * np.sqrt(2 / np.prod(leaf.shape[:-1]), dtype=np.float32)
    is_variance = jax.tree_util.keystr(keys[-1:], simple=True) == "var"
    return 1 + 0.1 * np.abs(values) if is_variance else 0.1 * values

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  convert.save_npz(path, module, variables)


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--image_size", type=int, required=True)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  for split, count in _COUNTS.items():
    files.write_pngs(args.out / split, make_images(rng, count, args.image_size))
  make_network(args.out / "inception.npz")
  print(f"Stand-ins of {args.image_size} pixels in {args.out}")


if __name__ == "__main__":
  main()
