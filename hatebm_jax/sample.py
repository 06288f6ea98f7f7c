"""Draws images from a trained run: samples, a grid, a film strip of paths."""

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
  data,
  errors,
  images,
  langevin,
  objectives,
  pixels,
  sharding,
  train,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax import settings as settings_lib
from hatebm_jax.objectives.parts import base, hat_learning
from hatebm_jax.run import checkpoint, npz, workdir

_GRID_IMAGES = 100
_PATHS = 8
_FRAMES = 11


class Drawn(NamedTuple):
  """Images of as many chains, uint8 `[num_images, height, width, channels]`.

  Attributes:
    generated: G(z), where the chains started.
    samples: G(z) + y, where they ended; without a hat, `generated`.
  """

  generated: np.ndarray
  samples: np.ndarray


class Paths(NamedTuple):
  """Paths of a few chains, `[frames, chains, height, width, channels]`.

  Attributes:
    generated: G(z), float32 in [-1, 1] where G is.
    residuals: y, float32.
  """

  generated: np.ndarray
  residuals: np.ndarray


class Restored(NamedTuple):
  """A run brought back for use.

  Attributes:
    config: of the run, with the command's sample and evaluate groups.
    step: training steps that its weights have taken.
    networks: hat and generator.
    variables: of hat and generator, raw or averaged as the config says.
    encoder_variables: of the encoder, where there is one.
    mesh: that the variables lie on.
  """

  config: ml_collections.ConfigDict
  step: int
  networks: base.Networks
  variables: tuple[Any, Any]
  encoder_variables: Any
  mesh: Mesh


def restore(
  config: ml_collections.ConfigDict,
  path: pathlib.Path,
  generator: base.Generator | None = None,
) -> Restored:
  """Restores a checkpoint of a run, the newest unless the config names one.

  Args:
    config: of the command; all but its `sample`, `evaluate` and `sharding`
      groups are taken from the run.
    path: the workdir.
    generator: that the run was trained with, if it was given one.

  Raises:
    CheckpointError: if no checkpoint is whole, or it is of another network.
    ConfigError: if a field cannot be used; or the run was given a generator,
      and none is given here.
    WorkdirError: if the workdir holds no run or no such checkpoint.
  """
  config = workdir.run_config(path, config)
  settings_lib.check(config)
  of_config = config.objective != "joint" or config.generator.source
  if generator is None and not of_config:
    raise errors.ConfigError(
      f"{path}: this run's hat sits on a generator that was given to "
      "train.train in Python. Give it to sample.restore too."
    )
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh, generator)
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = _pick_step(saved, config.sample.checkpoint, path)
    state = saved.restore(step, train.abstract_state(config, objective, mesh))
  networks, weights = objective.networks, config.sample.weights
  encoder_variables = None
  if networks.encoder:
    encoder_variables = networks.encoder_variables(state, weights)
  variables = networks.variables(state, weights)
  return Restored(config, step, networks, variables, encoder_variables, mesh)


def _pick_step(
  saved: checkpoint.Checkpoints, wanted: int | None, path: pathlib.Path
) -> int:
  """Returns the training step of the checkpoint to restore."""
  steps = saved.steps()
  if not steps:
    raise workdir.WorkdirError(
      f"{saved.path} holds no checkpoint. Train the run first: "
      f"--mode=train --workdir={path}."
    )
  if wanted is None:
    return saved.newest_whole()
  if wanted not in steps:
    raise workdir.WorkdirError(
      f"config.sample.checkpoint={wanted}: expected a training step that "
      f"{saved.path} holds, one of {', '.join(map(str, steps))}."
    )
  saved.check(wanted)
  return wanted


def settings(config: ml_collections.ConfigDict) -> langevin.Settings:
  """Returns the chain of evaluation; what it leaves open is as in training."""
  evaluate = config.evaluate
  given = lambda name: (
    config.langevin[name] if evaluate[name] is None else evaluate[name]
  )
  return langevin.Settings(
    num_steps=evaluate.num_steps,
    step_size_y=given("step_size_y"),
    step_size_z=given("step_size_z"),
    temperature=given("temperature"),
    tau=given("tau"),
    max_drift_y=evaluate.max_drift_y,
    update_z=hat_learning.moves_z(config),
  )


def init_scale_z(config: ml_collections.ConfigDict) -> float:
  """Returns the scale of z at the start of the chains of evaluation."""
  scale = config.evaluate.init_scale_z
  return config.langevin.init_scale_z if scale is None else scale


def start(restored: Restored, rngs: jax.Array) -> langevin.State:
  """Returns fresh chains of evaluation, of a key each."""
  config = restored.config
  return langevin.init_state(
    rngs,
    restored.networks.latent_shape,
    restored.networks.image_shape,
    init_scale_z(config),
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
    G(z) at the start and the sample, `[batch, height, width, channels]` in
    [-1, 1]; with frames G(z) and y along the path,
    `[batch, num_frames, height, width, channels]`.
  """
  networks, mesh = restored.networks, restored.mesh
  rng = rng_lib.stream(jax.random.key(restored.config.seed), "sample")

  def chains(variables, rngs):
    hat_variables, generator_variables = variables
    generator_fn = lambda z: networks.generator.apply(generator_variables, z)
    chain = settings(restored.config)
    state = start(restored, rngs)
    x_generated = generator_fn(state.z)
    if networks.hat is None:
      return x_generated, x_generated
    hat_fn = lambda x: networks.hat.apply(hat_variables, x)
    if num_frames:
      path = langevin.sample_path(
        rngs, hat_fn, generator_fn, state, chain, num_frames
      )
      frames = jax.vmap(generator_fn)(path.z), path.y
      return jax.tree.map(lambda frame: frame.swapaxes(0, 1), frames)
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


def draw(restored: Restored, repeat: int = 0) -> Drawn:
  """Draws `config.sample.num_images` images.

  The i-th of a repeat depends on the seed, on the repeat and on i alone. Chains
  run `config.sample.batch_size` at a time, rounded up to what divides over the
  devices.

  Args:
    restored: from `restore`.
    repeat: which of several disjoint sets of images, from 0.
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


def draw_paths(restored: Restored) -> Paths:
  """Draws a few paths of a run that has a hat."""
  num = _round_up(_PATHS, restored.mesh.size)
  frames = min(_FRAMES, restored.config.evaluate.num_steps + 1)
  paths = sharding.fetch(compile_chains(restored, frames)(np.arange(num)))
  return Paths(*(path[:_PATHS].swapaxes(0, 1) for path in paths))


def split_image(paths: Paths) -> np.ndarray:
  """Shows what the ends of paths are made of: G(z), y and their sum.

  Returns:
    uint8 picture, a row a chain. y is gray where it is zero, and scaled so that
    the largest of all its values is black or white.
  """
  generated, residual = paths.generated[-1], paths.residuals[-1]
  scaled = residual / max(np.abs(residual).max(), 1e-12)
  columns = np.stack([generated, scaled, generated + residual])
  return images.film_strip(pixels.to_uint8(columns))


def reconstruct(restored: Restored, num_images: int) -> np.ndarray:
  """Encodes and decodes images of the test split.

  Args:
    restored: a run with an encoder.
    num_images: how many.

  Returns:
    uint8 `[2, num_images, height, width, channels]`: images, and what comes
    back of them.
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
    frames = pixels.to_uint8(paths.generated + paths.residuals)
    result |= {
      "grid": images.grid(drawn.samples[:_GRID_IMAGES]),
      "paths": images.film_strip(frames),
      "split": split_image(paths),
    }
  if restored.networks.encoder is not None:
    pairs = reconstruct(restored, _GRID_IMAGES // 2)
    rows = pairs.swapaxes(0, 1).reshape(-1, *pairs.shape[2:])
    result["reconstructions"] = images.grid(rows, columns=10)
  return result


def write(restored: Restored, path: pathlib.Path, drawn: Drawn) -> None:
  """Writes drawn images and pictures under the workdir.

  That is samples/STEP_WEIGHTS.npz, and beside it grids of them and, as the run
  has a hat or an encoder, sampling paths, what samples are made of, or
  reconstructions; what was written is printed.
  """
  sample = restored.config.sample
  shown = pictures(restored, drawn)
  if jax.process_index() > 0:
    return
  stem = path / "samples" / f"{restored.step:08d}_{sample.weights}"
  stem.parent.mkdir(parents=True, exist_ok=True)
  npz.save(
    stem.with_suffix(".npz"), images=drawn.samples, generator=drawn.generated
  )
  for name, picture in shown.items():
    file = stem.with_name(f"{stem.name}_{name}.png")
    images.write_png(file, picture)
    print(f"{name:>15}: {file}")
  steps = restored.config.evaluate.num_steps
  chain = f", {steps} Langevin steps" if restored.networks.hat else ""
  print(
    f"{'samples':>15}: {stem}.npz ({len(drawn.samples)} images, "
    f"{sample.weights} weights of step {restored.step}{chain})",
    flush=True,
  )
