"""Draws images from a trained run: samples, a grid, a film strip of paths."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath

from hatebm_jax import chains as chains_lib
from hatebm_jax import (
  data,
  film_strip,
  images,
  pixels,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.restore import Restored, restore
from hatebm_jax.run import files, npz

__all__ = [
  "Drawn",
  "Restored",
  "compile_chains",
  "draw",
  "draw_paths",
  "pictures",
  "reconstruct",
  "restore",
  "write",
]

_GRID_IMAGES = 100
_PATHS = 8


class Drawn(NamedTuple):
  """Drawn images, uint8 `[num_images, height, width, channels]`, a chain each.

  Attributes:
    generated: Images G(z), where the chains started.
    samples: Images G(z) + y, where the chains ended; without a hat, the same as
      `generated`.
  """

  generated: np.ndarray
  samples: np.ndarray


def compile_chains(
  restored: Restored,
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
  """Compiles the chains that draw samples.

  Args:
    restored: Restored run.

  Returns:
    A function of the chains' indices `[batch]`. It returns G(z) at the start
    and the sample, `[batch, height, width, channels]` in [-1, 1].
  """
  model, mesh = restored.networks, restored.mesh
  plan = chains_lib.evaluation_plan(restored.config)

  def draw(variables, rngs):
    if model.hat is None:
      _, generator_fn = chains_lib.bind(model, variables)
      x_generated = generator_fn(chains_lib.start(model, plan, rngs).z)
      return x_generated, x_generated
    fresh = chains_lib.run(model, plan, variables, rngs)
    return fresh.x_start, fresh.x_sample

  def call(variables, indices):
    method = restored.config.sharding.chains
    split = chains_lib.over_devices(draw, mesh, method)
    return split(variables, _chain_rngs(restored, indices))

  compiled = jax.jit(call)
  return lambda indices: compiled(restored.variables, jnp.asarray(indices))


def _chain_rngs(restored: Restored, indices: jax.Array) -> jax.Array:
  """Returns the keys of the chains that have these indices, `[batch]`."""
  rng = rng_lib.stream(jax.random.key(restored.config.seed), "sample")
  return rng_lib.per_index(rng, indices)


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple


def draw(restored: Restored, repeat: int = 0) -> Drawn:
  """Draws `config.sample.num_images` images.

  Image i of a repeat depends only on the seed, the repeat and i. The chains run
  in batches of `config.sample.batch_size`, rounded up to a multiple of the
  number of devices.

  Args:
    restored: Restored run.
    repeat: Number of the set of images, from 0; sets are disjoint.
  """
  num_images = restored.config.sample.num_images
  first = repeat * num_images
  batch_size = _round_up(restored.config.sample.batch_size, restored.mesh.size)
  chains = compile_chains(restored)
  drawn = []
  starts = range(0, num_images, batch_size)
  for start in tqdm.tqdm(
    starts, "sampling", unit="batch", disable=jax.process_index() > 0
  ):
    batch = sharding.fetch(chains(first + start + np.arange(batch_size)))
    drawn.append([pixels.to_uint8(part) for part in batch])
  return Drawn(
    *(np.concatenate(parts)[:num_images] for parts in zip(*drawn, strict=True))
  )


def draw_paths(restored: Restored) -> film_strip.Paths:
  """Draws the paths of the first few chains of a run that has a hat."""
  num = _round_up(_PATHS, restored.mesh.size)
  paths = film_strip.draw(
    restored.networks,
    chains_lib.evaluation_plan(restored.config),
    restored.variables,
    _chain_rngs(restored, jnp.arange(num)),
    restored.mesh,
    restored.config.sharding.chains,
  )
  return film_strip.Paths(*(path[:, :_PATHS] for path in paths))


def reconstruct(restored: Restored, num_images: int) -> np.ndarray:
  """Encodes and decodes images of the test split.

  Args:
    restored: Restored run that has an encoder.
    num_images: Number of images.

  Returns:
    The images and their reconstructions, uint8
    `[2, num_images, height, width, channels]`.
  """
  networks = restored.networks
  source = data.open_source(restored.config.data, "test")
  x = source.images(range(min(num_images, source.num_images)))

  @jax.jit
  def call(variables, encoder_variables, x):
    z = networks.encoder.apply(encoder_variables, pixels.to_float(x))
    return networks.generator.apply(variables[1], z)

  result = call(restored.variables, restored.encoder_variables, x)
  return np.stack([x, pixels.to_uint8(jax.device_get(result))])


def pictures(restored: Restored, drawn: Drawn) -> dict[str, np.ndarray]:
  """Returns a run's pictures by name, uint8 `[height, width, channels]`."""
  result = {"generator": images.grid(drawn.generated[:_GRID_IMAGES])}
  if restored.networks.hat is not None:
    paths = draw_paths(restored)
    result |= {
      "grid": images.grid(drawn.samples[:_GRID_IMAGES]),
      "paths": film_strip.picture(paths),
      "split": film_strip.split_picture(paths),
    }
  if restored.networks.encoder is not None:
    result |= _reconstructions(restored)
  return result


def _reconstructions(restored: Restored) -> dict[str, np.ndarray]:
  """Returns the picture of reconstructions, if there are test images."""
  try:
    pairs = reconstruct(restored, _GRID_IMAGES // 2)
  except data.DataError as error:
    # Samples need no images.
    if jax.process_index() == 0:
      print(f"No reconstructions are drawn: {error}", file=sys.stderr)
    return {}
  rows = pairs.swapaxes(0, 1).reshape(-1, *pairs.shape[2:])
  return {"reconstructions": images.grid(rows, columns=10)}


def write(restored: Restored, path: epath.PathLike, drawn: Drawn) -> None:
  """Writes drawn images and pictures of them into the workdir.

  The images go to samples/STEP_WEIGHTS.npz, their grids beside it. A run with a
  hat also gets pictures of sampling paths and of what samples are made of; a
  run with an encoder gets reconstructions. The names of the files are printed.

  Args:
    restored: Restored run.
    path: Path of the workdir.
    drawn: Drawn images.
  """
  sample = restored.config.sample
  shown = pictures(restored, drawn)
  if jax.process_index() > 0:
    return
  name = f"{restored.step:08d}_{sample.weights}"
  stem = files.as_path(path) / "samples" / name
  npz.save(
    stem.with_suffix(".npz"), images=drawn.samples, generator=drawn.generated
  )
  for name, picture in shown.items():
    file = stem.with_name(f"{stem.name}_{name}.png")
    files.write_png(file, picture)
    print(f"{name:>15}: {file}")
  steps = restored.config.evaluate.num_steps
  chain = f", {steps} Langevin steps" if restored.networks.hat else ""
  print(
    f"{'samples':>15}: {stem}.npz ({len(drawn.samples)} images, "
    f"{sample.weights} weights of step {restored.step}{chain})",
    flush=True,
  )
