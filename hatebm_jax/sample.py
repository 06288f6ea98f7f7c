"""Draws images from a trained run: samples, a grid, a film strip of paths."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath

from hatebm_jax import chains as chains_lib
from hatebm_jax import data, film_strip, images, pixels, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.restore import Restored, restore
from hatebm_jax.run import files, npz, sample_files

__all__ = [
  "Drawn",
  "Restored",
  "batches",
  "compile_chains",
  "digest",
  "draw",
  "draw_paths",
  "kind",
  "pictures",
  "read",
  "read_or_draw",
  "reconstruct",
  "restore",
  "settings",
  "weights_digest",
  "write",
]

_GRID_IMAGES = 100
_PATHS = 8


class Drawn(NamedTuple):
  """Drawn images, uint8 `[num_images, height, width, channels]`, a chain each.

  Attributes:
    generated: Images G(z), where the chains started.
    samples: Images G(z) + y, where the chains ended, or G(z) where those of
      DDLS ended; without chains, the same as `generated`.
    repeat: Number of the set of images, see `draw`.
  """

  generated: np.ndarray
  samples: np.ndarray
  repeat: int = 0


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
  model, config = restored.networks, restored.config
  plan = chains_lib.evaluation_plan(config)

  def draw(variables, rngs):
    of_run, of_discriminator = variables
    if kind(restored) == "generator":
      _, generator_fn = chains_lib.bind(model, of_run)
      x_generated = generator_fn(chains_lib.start(model, plan, rngs).z)
      return x_generated, x_generated
    if kind(restored) == "ddls":
      logits = lambda x: model.discriminator.apply(of_discriminator, x)
      fresh = chains_lib.run_ddls(model, logits, of_run, rngs, **config.ddls)
    else:
      fresh = chains_lib.run(model, plan, of_run, rngs)
    return fresh.x_start, fresh.x_sample

  def call(variables, indices):
    split = chains_lib.over_devices(draw, restored.mesh, config.sharding.chains)
    return split(variables, _chain_rngs(restored, indices))

  compiled = jax.jit(call)
  variables = restored.variables, restored.discriminator_variables
  return lambda indices: compiled(variables, jnp.asarray(indices))


def kind(restored: Restored) -> str:
  """Returns what draws the samples of a run: `hat`, `ddls` or `generator`."""
  if restored.networks.hat is not None:
    return "hat"
  return "ddls" if restored.config.ddls.num_steps else "generator"


def _chain_rngs(restored: Restored, indices: jax.Array) -> jax.Array:
  """Returns the keys of the chains that have these indices, `[batch]`."""
  rng = rng_lib.stream(jax.random.key(restored.config.seed), "sample")
  return rng_lib.per_index(rng, indices)


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple


def batches(restored: Restored, repeat: int = 0) -> Iterator[Drawn]:
  """Draws `config.sample.num_images` images and yields them batch by batch.

  Image i of a repeat depends only on the seed, the repeat and i. The chains run
  in batches of `config.sample.batch_size`, or all at a time if they are fewer.
  A batch is rounded up to a multiple of the number of devices.

  Args:
    restored: Restored run.
    repeat: Number of the set of images, from 0; sets are disjoint.
  """
  config = restored.config.sample
  num_images = config.num_images
  first = repeat * num_images
  batch_size = min(config.batch_size, num_images)
  batch_size = _round_up(batch_size, restored.mesh.size)
  chains = compile_chains(restored)
  starts = range(0, num_images, batch_size)
  for start in tqdm.tqdm(
    starts, "sampling", unit="batch", disable=jax.process_index() > 0
  ):
    batch = sharding.fetch(chains(first + start + np.arange(batch_size)))
    parts = (pixels.to_uint8(part)[: num_images - start] for part in batch)
    yield Drawn(*parts, repeat)


def draw(restored: Restored, repeat: int = 0) -> Drawn:
  """Draws `config.sample.num_images` images; see `batches`.

  Args:
    restored: Restored run.
    repeat: Number of the set of images, from 0; sets are disjoint.
  """
  drawn = list(batches(restored, repeat))
  return Drawn(
    np.concatenate([batch.generated for batch in drawn]),
    np.concatenate([batch.samples for batch in drawn]),
    repeat,
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
  if kind(restored) != "generator":
    result["grid"] = images.grid(drawn.samples[:_GRID_IMAGES])
  if kind(restored) == "hat":
    paths = draw_paths(restored)
    result |= {
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


def settings(restored: Restored) -> dict[str, Any]:
  """Returns the settings that a run's images are drawn with, for records."""
  config, is_hat = restored.config, kind(restored) == "hat"
  plan = chains_lib.evaluation_plan(config)
  record = {
    "checkpoint_step": restored.step,
    "weights": config.sample.weights,
    "seed": config.seed,
    "langevin": chains_lib.record(plan.settings) if is_hat else None,
    "init_scale_z": plan.init_scale_z,
    "init_scale_y": plan.init_scale_y if is_hat else None,
  }
  # Records of other samples do not have the entry `ddls`.
  if kind(restored) == "ddls":
    record |= {"init_scale_z": 1.0, "ddls": config.ddls.to_dict()}
  return record


def _place(
  restored: Restored,
  path: epath.PathLike,
  record: dict[str, Any],
  images: np.ndarray | None = None,
) -> sample_files.Place:
  """Returns the file of a set of images."""
  folder = files.as_path(path) / sample_files.FOLDER
  weights = restored.config.sample.weights
  return sample_files.find(folder, restored.step, weights, record, images)


def _record(restored: Restored, repeat: int = 0) -> dict[str, Any]:
  """Returns the record of what draws a set of images; it takes a hash."""
  sha256 = weights_digest(restored)
  return settings(restored) | {"weights_sha256": sha256, "repeat": repeat}


def weights_digest(restored: Restored) -> str:
  """Returns a SHA-256 of the weights that draw the samples of a run."""
  if kind(restored) == "ddls":
    return digest((restored.variables, restored.discriminator_variables))
  return digest(restored.variables)


def digest(variables: Any) -> str:
  """Returns a SHA-256 of variables, their names and their values."""
  digest = hashlib.sha256()
  for keys, value in jax.tree.leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(keys).encode())
    digest.update(np.asarray(sharding.fetch(value)).tobytes())
  return digest.hexdigest()


def read(restored: Restored, path: epath.PathLike) -> Drawn | None:
  """Reads images that the same settings drew before, and says so.

  Args:
    restored: Restored run.
    path: Path of the folder that `write` writes into.

  Returns:
    The first `config.sample.num_images` images. None if no file holds as many
    images of these weights and settings.
  """
  return _read(restored, path, _record(restored))


def read_or_draw(restored: Restored, path: epath.PathLike) -> Drawn:
  """Reads images that the same settings drew before, or draws and writes them.

  Args:
    restored: Restored run.
    path: Path of the workdir, or of another folder.
  """
  record = _record(restored)
  drawn = _read(restored, path, record)
  if drawn is None:
    drawn = draw(restored)
    _write(restored, path, drawn, record)
  return drawn


def _read(
  restored: Restored, path: epath.PathLike, record: dict[str, Any]
) -> Drawn | None:
  """Reads the images of a record; None if there are too few."""
  place = _place(restored, path, record)
  num_images = restored.config.sample.num_images
  (missing,) = sharding.any_process(place.num_images < num_images)
  if missing:
    return None
  arrays = npz.arrays(place.path, ["images", "generator"])
  images, generated = (x[:num_images] for x in arrays.values())
  _tell_kept(restored, place, images)
  return Drawn(generated, images)


def _tell_kept(
  restored: Restored, place: sample_files.Place, images: np.ndarray
) -> None:
  """Says that images are kept, and writes them as PNGs if that is asked for."""
  if jax.process_index() > 0:
    return
  print(
    f"{'samples':>15}: {place.path} holds {place.num_images} images that the "
    "same weights and settings drew. They are kept.",
    flush=True,
  )
  _write_pngs(restored, place, images)


def _write_pngs(
  restored: Restored, place: sample_files.Place, images: np.ndarray
) -> None:
  """Writes each image as a PNG if `config.sample.png` asks for it."""
  if restored.config.sample.png:
    folder = place.path.with_suffix("")
    files.write_pngs(folder, images)
    print(f"{'PNGs':>15}: {folder} ({len(images)} images)", flush=True)


def write(restored: Restored, path: epath.PathLike, drawn: Drawn) -> None:
  """Writes drawn images and pictures of them into a folder.

  The images go to samples/STEP_WEIGHTS.npz, their grids beside it. A run with a
  hat also gets pictures of sampling paths and of what samples are made of; a
  run with an encoder gets reconstructions. If `config.sample.png` is set, each
  image is also a PNG in samples/STEP_WEIGHTS. The names of the files are
  printed.

  No image is lost: images of other settings stay, and the new ones get another
  name (`hatebm_jax.run.sample_files`). If as many images of the same settings
  are there, nothing is written.

  Args:
    restored: Restored run.
    path: Path of the workdir, or of another folder.
    drawn: Drawn images.
  """
  _write(restored, path, drawn, _record(restored, drawn.repeat))


def _write(
  restored: Restored,
  path: epath.PathLike,
  drawn: Drawn,
  record: dict[str, Any],
) -> None:
  """Writes the images of a record and their pictures, unless they are there."""
  sample, images = restored.config.sample, drawn.samples
  place = _place(restored, path, record, images)
  writes = jax.process_index() == 0
  (kept,) = sharding.any_process(writes and place.num_images >= len(images))
  if kept:
    _tell_kept(restored, place, images)
    return
  shown = pictures(restored, drawn)
  if not writes:
    return
  for other in place.others:
    print(f"{other} holds images of other settings, which stay.")
  sample_files.save(
    place.path, record, images=images, generator=drawn.generated
  )
  stem = place.path.with_suffix("")
  for name, picture in shown.items():
    file = stem.with_name(f"{stem.name}_{name}.png")
    files.write_png(file, picture)
    print(f"{name:>15}: {file}")
  config = restored.config
  steps = {
    "hat": f", {config.evaluate.num_steps} Langevin steps",
    "ddls": f", {config.ddls.num_steps} steps of DDLS",
  }
  chain = steps.get(kind(restored), "")
  print(
    f"{'samples':>15}: {place.path} ({len(images)} images, "
    f"{sample.weights} weights of step {restored.step}{chain})",
    flush=True,
  )
  _write_pngs(restored, place, images)
