"""Draws images from a trained run: samples, a grid, a film strip of paths."""

import io
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from jax.sharding import Mesh

from hatebm_jax import (
  checkpoint,
  data,
  images,
  langevin,
  objectives,
  sharding,
  train,
  workdir,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import base

_GRID_IMAGES = 100
_PATHS = 8
_FRAMES = 11


class Drawn(NamedTuple):
  """Images of as many chains, uint8 `[num_images, height, width, channels]`.

  Attributes:
    generated: G(z), where the chains started.
    samples: G(z) + y, where they ended.
  """

  generated: np.ndarray
  samples: np.ndarray


class Restored(NamedTuple):
  """A run brought back for use.

  Attributes:
    config: of the run, with the command's sample and evaluate groups.
    step: training steps that its weights have taken.
    networks: hat and generator.
    variables: of hat and generator, raw or averaged as the config says.
    mesh: that the variables lie on.
  """

  config: ml_collections.ConfigDict
  step: int
  networks: base.Networks
  variables: tuple[Any, Any]
  mesh: Mesh


def restore(config: ml_collections.ConfigDict, path: pathlib.Path) -> Restored:
  """Restores the newest checkpoint of a run.

  Args:
    config: of the command; all but its `sample`, `evaluate` and `sharding`
      groups are taken from the run.
    path: the workdir.

  Raises:
    workdir.WorkdirError: if the workdir holds no run or no checkpoint.
  """
  config = workdir.run_config(path, config)
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  with checkpoint.Checkpoints(path, config.train.keep_checkpoints) as saved:
    step = saved.latest_step()
    if step is None:
      raise workdir.WorkdirError(
        f"{saved.path} holds no checkpoint. Train the run first: "
        f"--mode=train --workdir={path}."
      )
    state = saved.restore(step, train.abstract_state(config, objective, mesh))
  networks = objective.networks
  variables = networks.variables(state, config.sample.weights)
  return Restored(config, step, networks, variables, mesh)


def settings(config: ml_collections.ConfigDict) -> langevin.Settings:
  """Returns the chain of evaluation; what it leaves open is as in training."""
  evaluate = config.evaluate
  given = lambda name: (
    config.langevin[name] if evaluate[name] is None else evaluate[name]
  )
  return langevin.Settings(
    num_steps=evaluate.num_steps,
    step_size_y=given("step_size_y"),
    temperature=given("temperature"),
    tau=given("tau"),
    max_drift_y=evaluate.max_drift_y,
  )


def _start(restored: Restored, rngs: jax.Array) -> langevin.State:
  """Fresh chains of evaluation."""
  config = restored.config
  scale_z = config.evaluate.init_scale_z
  return langevin.init_state(
    rngs,
    restored.networks.latent_shape,
    restored.networks.image_shape,
    config.langevin.init_scale_z if scale_z is None else scale_z,
    config.evaluate.init_scale_y,
  )


def compile_chains(
  restored: Restored, num_frames: int = 0
) -> Callable[[jax.Array], Any]:
  """Compiles the chains of evaluation.

  Args:
    restored: from `restore`.
    num_frames: states of the path to return; 0: the ends alone.

  Returns:
    A function of the chains' indices `[batch]`. Without frames it returns
    G(z) and the sample, `[batch, height, width, channels]` in [-1, 1]; with
    frames the path `[batch, num_frames, height, width, channels]`.
  """
  networks, mesh = restored.networks, restored.mesh
  rng = rng_lib.stream(jax.random.key(restored.config.seed), "sample")

  def chains(variables, rngs):
    hat_variables, generator_variables = variables
    hat_fn = lambda x: networks.hat.apply(hat_variables, x)
    generator_fn = lambda z: networks.generator.apply(generator_variables, z)
    chain = settings(restored.config)
    state = _start(restored, rngs)
    if num_frames:
      path = langevin.sample_path(
        rngs, hat_fn, generator_fn, state, chain, num_frames
      )
      frames = jax.vmap(generator_fn)(path.z) + path.y
      return frames.swapaxes(0, 1)
    x_generated = generator_fn(state.z)
    state, _ = langevin.sample(rngs, hat_fn, generator_fn, state, chain)
    return x_generated, generator_fn(state.z) + state.y

  def call(variables, indices):
    rngs = rng_lib.per_index(rng, indices)
    method = restored.config.sharding.chains
    split = sharding.split(chains, mesh, replicated=(0,), method=method)
    return split(variables, rngs)

  compiled = jax.jit(call)
  return lambda indices: compiled(restored.variables, jnp.asarray(indices))


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple


def draw(restored: Restored) -> Drawn:
  """Draws `config.sample.num_images` images.

  The i-th depends on the seed and on i alone. Chains run
  `config.sample.batch_size` at a time, rounded up to what divides over the
  devices.
  """
  num_images = restored.config.sample.num_images
  batch_size = _round_up(restored.config.sample.batch_size, restored.mesh.size)
  chains = compile_chains(restored)
  drawn = []
  starts = range(0, num_images, batch_size)
  for start in tqdm.tqdm(
    starts, "sampling", unit="batch", disable=jax.process_index() > 0
  ):
    batch = sharding.fetch(chains(start + np.arange(batch_size)))
    drawn.append([data.to_uint8(part) for part in batch])
  return Drawn(
    *(np.concatenate(parts)[:num_images] for parts in zip(*drawn, strict=True))
  )


def draw_paths(restored: Restored) -> np.ndarray:
  """Draws a few paths, uint8 `[frames, chains, height, width, channels]`."""
  num = _round_up(_PATHS, restored.mesh.size)
  frames = min(_FRAMES, restored.config.evaluate.num_steps + 1)
  paths = sharding.fetch(compile_chains(restored, frames)(np.arange(num)))
  return data.to_uint8(paths[:_PATHS].swapaxes(0, 1))


def write(restored: Restored, path: pathlib.Path, drawn: Drawn) -> None:
  """Writes drawn images and a few sampling paths under the workdir.

  That is samples/STEP_WEIGHTS.npz, grids and a film strip beside it; what was
  written is printed.
  """
  sample = restored.config.sample
  paths = draw_paths(restored)
  if jax.process_index() > 0:
    return
  stem = path / "samples" / f"{restored.step:08d}_{sample.weights}"
  stem.parent.mkdir(parents=True, exist_ok=True)
  save_npz(
    stem.with_suffix(".npz"), images=drawn.samples, generator=drawn.generated
  )
  for name, picture in {
    "grid": images.grid(drawn.samples[:_GRID_IMAGES]),
    "generator": images.grid(drawn.generated[:_GRID_IMAGES]),
    "paths": images.film_strip(paths),
  }.items():
    file = stem.with_name(f"{stem.name}_{name}.png")
    images.write_png(file, picture)
    print(f"{name:>10}: {file}")
  print(
    f"{'samples':>10}: {stem}.npz ({len(drawn.samples)} images, "
    f"{sample.weights} weights of step {restored.step}, "
    f"{restored.config.evaluate.num_steps} Langevin steps)",
    flush=True,
  )


def save_npz(file: pathlib.Path, **arrays: np.ndarray) -> None:
  """Writes an npz whole or not at all."""
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  partial = file.with_name(file.name + ".partial")
  partial.write_bytes(buffer.getvalue())
  os.replace(partial, file)
