"""A hat that is not ours: a small convolutional network in Flax NNX.

python -m experiments.own_hat.nnx_hat --workdir=runs/own_hat

The hat sits on the generator of experiments/own_generator, 32 principal
components of the digits, so that neither network is one of this package. All
that training and sampling need of the hat are two pure functions.
"""

import argparse
import pathlib

import jax
from flax import nnx

from experiments.own_generator import pca
from hatebm_jax import networks


class ConvHat(nnx.Module):
  """Three strided convolutions with SiLU, and a linear head."""

  def __init__(self, channels: int, width: int, rngs: nnx.Rngs):
    self.conv_0 = nnx.Conv(channels, width, (4, 4), strides=2, rngs=rngs)
    self.conv_1 = nnx.Conv(width, 2 * width, (4, 4), strides=2, rngs=rngs)
    self.conv_2 = nnx.Conv(2 * width, 4 * width, (4, 4), strides=2, rngs=rngs)
    self.head = nnx.Linear(4 * width, 1, use_bias=False, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns energies `[batch]` of images `[batch, h, w, channels]`."""
    for conv in (self.conv_0, self.conv_1, self.conv_2):
      x = nnx.silu(conv(x))
    return self.head(x.mean((1, 2)))[:, 0]


def make_hat(channels: int = 1, width: int = 32) -> networks.Hat:
  """Returns the network as the two pure functions of a `Hat`."""
  graph, _ = nnx.split(ConvHat(channels, width, nnx.Rngs(0)))

  def init(rng, x):
    del x  # An NNX module knows its shapes.
    return nnx.state(ConvHat(channels, width, nnx.Rngs(rng)))

  def apply(params, x):
    return nnx.merge(graph, params)(x)

  return networks.Hat(init, apply)


def main() -> None:
  """Trains the hat, draws samples and evaluates them."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="Workdir of the run."
  )
  parser.add_argument("--seed", type=int, default=0, help="Seed of the run.")
  args = parser.parse_args()
  pca.train_and_evaluate(args.workdir.absolute(), args.seed, make_hat())


if __name__ == "__main__":
  main()
