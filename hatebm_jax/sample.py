"""Draws images from a trained run: samples, a grid, a film strip of paths."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from etils import epath
from jax.sharding import Mesh

from hatebm_jax import chains as chains_lib
from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  data,
  errors,
  film_strip,
  images,
  networks,
  objectives,
  pixels,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts.objective import Objective
from hatebm_jax.run import checkpoint, files, npz, signals, workdir

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


class Restored(NamedTuple):
  """A trained run that is ready for use.

  Attributes:
    config: Config of the run, with the command's fields for sampling and
      evaluation.
    step: Number of training steps that its weights have taken.
    networks: Networks of the run.
    variables: Parameters of hat and generator, raw or averaged as the config
      says.
    encoder_variables: Variables of the encoder; None for a run without one.
    mesh: Mesh that the variables lie on.
  """

  config: ml_collections.ConfigDict
  step: int
  networks: networks.Networks
  variables: tuple[Any, Any]
  encoder_variables: Any
  mesh: Mesh


def restore(
  config: ml_collections.ConfigDict,
  path: epath.PathLike,
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
) -> Restored:
  """Restores a checkpoint of a run, the newest unless the config names one.

  Args:
    config: Config of the command. Only the fields that a resumed run may change
      are taken from it, the others from the run.
    path: Path of the workdir.
    generator: Generator of the user's own, if the run was trained with one.
    hat: Hat of the user's own, if the run was trained with one.

  Raises:
    CheckpointError: If no checkpoint is whole, or it is of another network.
    ConfigError: If a field cannot be used, or the run was trained with a
      generator of the user's own and none is given here.
    WorkdirError: If the workdir holds no run or no such checkpoint.
  """
  path = files.as_path(path)
  config = workdir.run_config(path, config)
  objective, state, step = restore_state(config, path, generator, hat)
  model, weights = objective.networks, config.sample.weights
  encoder_variables = None
  if model.encoder:
    encoder_variables = model.encoder_variables(state, weights)
  variables = model.variables(state, weights)
  mesh = jax.tree.leaves(state)[0].sharding.mesh
  return Restored(config, step, model, variables, encoder_variables, mesh)


@signals.hold_back()
def restore_state(
  config: ml_collections.ConfigDict,
  path: epath.Path,
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
) -> tuple[Objective, Any, int]:
  """Restores the whole state of a run, of a checkpoint as in `restore`.

  Args:
    config: Config of the run, with the command's fields for sampling.
    path: Path of the workdir.
    generator: Generator of the user's own, if the run was trained with one.
    hat: Hat of the user's own, if the run was trained with one.

  Returns:
    The objective, its state, and the number of training steps that the state
    has taken.
  """
  config_lib.check(config)
  of_config = config.objective != "joint" or config.generator.source
  if generator is None and not of_config:
    raise errors.ConfigError(
      f"{path}: this run's hat sits on a generator that was given to "
      "train.train in Python. Give it to sample.restore too."
    )
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh, generator, hat)
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = _pick_step(saved, config.sample.checkpoint, path)
    abstract = compile_lib.abstract_state(config, objective, mesh)
    return objective, saved.restore(step, abstract), step


def _pick_step(
  saved: checkpoint.Checkpoints, wanted: int | None, path: epath.Path
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
    pairs = reconstruct(restored, _GRID_IMAGES // 2)
    rows = pairs.swapaxes(0, 1).reshape(-1, *pairs.shape[2:])
    result["reconstructions"] = images.grid(rows, columns=10)
  return result


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
