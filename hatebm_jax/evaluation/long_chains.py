"""Runs long chains of a trained run and measures how they behave.

A hat that was trained with short chains promises nothing about longer ones.
Their images may over-saturate (Nijkamp et al., AAAI 2020), or the chains may
stand still. Here chains run `config.chains.multiple` times as long as the
chains that trained the hat, and at least as long as those of sampling.

A figure is None if it is not finite or cannot be measured. The figures are
those of `metrics.chain_mixing.FIGURES` and a curve:

- `ess`, `r_hat`, `stuck`: Mixing in the second half of the frames, see
  `metrics.chain_mixing`. If R-hat is far above 1, `ess` cannot be trusted.
- `energy_gap`: Mean H(reference images) - mean H(samples), from at most
  1,000 reference images that are evenly spaced.
- `drift_norm_y`, `drift_norm_z`: L2 norm of the drift of an image and of a
  latent. They are means over all steps and chains, including the chains
  that only fill up the devices.
- `curve`: Langevin step, mean energy, Frechet distance and share of pixels
  outside [-1, 1] at some frames. The distance is biased upwards because the
  chains are few. It can be compared along the curve.
- `sampling_steps`, `best_steps`: Length of the chains of sampling, and the step
  of the smallest distance of the curve. Fewer than 100 chains have no best
  step.
- `temperatures`: What `temperatures.measure` finds, if
  `config.chains.temperatures` asks for it.

The pictures are uint8 `[height, width, channels]`: `chains` shows curves,
`long_run` has a row for each chain and a column for each point of `curve`,
and `nearest` has a sample and its nearest training images in each row, the
nearest first.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from hatebm_jax import chains as chains_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  errors,
  film_strip,
  langevin,
  networks,
  pixels,
  sample,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.evaluation import energies as energies_lib
from hatebm_jax.evaluation import plots, temperatures
from hatebm_jax.metrics import chain_mixing

_ENERGY_FRAMES = 200  # Largest number of frames besides the start.
_IMAGE_FRAMES = 9  # Number of frames whose images are kept.
_DATA_IMAGES = 1_000  # Number of images that give the mean energy of the data.
_ROWS = 8  # Number of chains in a picture.
_NEIGHBOURS = 3  # Number of training images beside a sample.
# The distance of fewer chains is mostly bias and noise. 32 digits of the
# generator were nearer to the data than 32 samples in 7 of 20 random draws, and
# 128 of them in no draw.
_CHAINS_FOR_BEST = 100


class _Frame(NamedTuple):
  """Chains at one Langevin step; the leading axis is the chain.

  Attributes:
    energy: Energies H(G(z) + y), `[chains]`.
    saturation: Shares of pixels outside [-1, 1], `[chains]`.
    images: Images, uint8 `[chains, height, width, channels]`.
  """

  energy: jax.Array
  saturation: jax.Array
  images: jax.Array


class _Run(NamedTuple):
  """Chains at the frames of a run.

  Attributes:
    steps: Langevin steps of all frames, `[frames]`.
    energies: Energies of the chains, float64 `[frames, chains]`.
    marks: Indices of the frames whose images are kept, `[marks]`.
    images: Images, uint8 `[marks, chains, height, width, channels]`.
    saturation: Shares of pixels outside [-1, 1], `[marks, chains]`.
    drift_norms: Norms of the drift of y and of z, means over steps and chains.
    trained: Index of the frame that is nearest to the length of the training
      chains. It is one of `marks`.
  """

  steps: np.ndarray
  energies: np.ndarray
  marks: np.ndarray
  images: np.ndarray
  saturation: np.ndarray
  drift_norms: np.ndarray
  trained: int


def length(config: ml_collections.ConfigDict) -> int:
  """Returns the number of Langevin steps of the long chains of a config."""
  trained = config.chains.multiple * config.langevin.num_steps
  return max(trained, config.evaluate.num_steps)


def measure(
  restored: sample.Restored,
  reference_images: np.ndarray,
  distance: Callable[[np.ndarray], float] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Runs parallel chains from fresh starts and measures them.

  Chain i starts like sample i of `sample.draw` and gets the same noise, with
  the Langevin settings of evaluation. "Samples" are the chains at the frame
  that is nearest to `config.langevin.num_steps`, the length of the training
  chains.

  Args:
    restored: Run that has a hat.
    reference_images: Training images, uint8 `[n, height, width, channels]`.
    distance: Function that returns the Frechet distance of uint8 images to the
      training data; None does not measure it.

  Returns:
    The group `chains` of evaluation.json, and pictures by name; the docstring
    of the module describes both.

  Raises:
    ConfigError: If the config asks for no chains.
  """
  _check(restored.config.chains)
  run, config = _run(restored), restored.config
  data_energy = _data_energy(restored, reference_images)
  curve = _curve(run, distance)
  result = _figures(config, run, data_energy, curve)
  if config.chains.temperatures:
    result["temperatures"] = temperatures.measure(restored, data_energy)
  pictures = {
    "chains": plots.chains(
      run.steps, run.energies, data_energy, config.langevin.num_steps, curve
    ),
    "long_run": film_strip.tile(run.images[:, :_ROWS]),
    "nearest": _neighbours(run, reference_images),
  }
  return result, pictures


def _figures(config, run, data_energy, curve) -> dict[str, Any]:
  """Returns the group `chains` of evaluation.json, but for temperatures."""
  mixing = chain_mixing.mixing(run.energies[len(run.steps) // 2 :].T)
  return {
    "num_chains": config.chains.num_chains,
    "num_steps": int(run.steps[-1]),
    "training_steps": config.langevin.num_steps,
    "sampling_steps": config.evaluate.num_steps,
    "best_steps": _best_steps(curve, config.chains.num_chains),
    **mixing._asdict(),
    "energy_gap": _plain(data_energy - run.energies[run.trained].mean()),
    "drift_norm_y": _plain(run.drift_norms[0]),
    "drift_norm_z": _plain(run.drift_norms[1]),
    "curve": curve,
  }


def _check(chains: Any) -> None:
  config_lib.check_group(chains, "chains")
  if chains.num_chains < 1:
    raise errors.ConfigError(
      f"config.chains.num_chains={chains.num_chains!r}: expected 1 or more "
      "chains to run. Set it with --config.chains.num_chains=VALUE."
    )


def _plain(value: Any) -> float | None:
  """Returns a Python number, or None if JSON cannot hold the value."""
  return float(value) if np.isfinite(value) else None


def _curve(
  run: _Run, distance: Callable[[np.ndarray], float] | None
) -> list[dict[str, Any]]:
  """Describes the chains at the frames whose images are kept."""
  curve = []
  for i, mark in enumerate(run.marks):
    energies = run.energies[mark]
    # An image that is not a number has no energy. It would have a distance,
    # because it is black in uint8.
    has_distance = (
      distance and len(energies) > 1 and np.isfinite(energies).all()
    )
    curve.append(
      {
        "step": int(run.steps[mark]),
        "energy": _plain(energies.mean()),
        "frechet_distance": (
          _plain(distance(run.images[i])) if has_distance else None
        ),
        "saturation": float(run.saturation[i].mean()),
      }
    )
  return curve


def _best_steps(curve: list[dict[str, Any]], num_chains: int) -> int | None:
  """Returns the step of the smallest distance; None if it cannot be told."""
  known = [x for x in curve if x["frechet_distance"] is not None]
  if not known or num_chains < _CHAINS_FOR_BEST:
    return None
  return min(known, key=lambda point: point["frechet_distance"])["step"]


def frame_steps(num_steps: int, cycle: int = 1) -> np.ndarray:
  """Returns the Langevin steps of frames, evenly spaced up to the last one.

  Args:
    num_steps: Length of the chains, a multiple of the cycle.
    cycle: Length of a cycle of annealing. All its ends are frames, or whole
      cycles lie between two frames.
  """
  every = -(-num_steps // _ENERGY_FRAMES)
  while cycle % every and every % cycle:
    every += 1
  return np.append(np.arange(0, num_steps, every), num_steps)


def image_frames(num_frames: int, wanted: Sequence[int]) -> np.ndarray:
  """Returns the frames whose images are kept, about 9 with log spacing.

  Args:
    num_frames: Number of frames, 2 or more.
    wanted: Indices of frames after the first. Each replaces the chosen frame
      that is nearest to it.
  """
  marks = np.geomspace(1, num_frames - 1, _IMAGE_FRAMES - 1).round().astype(int)
  for index in wanted:
    marks[np.abs(np.log(marks / index)).argmin()] = index
  return np.unique([0, *marks, *wanted, num_frames - 1])


def _run(restored: sample.Restored) -> _Run:
  """Runs the chains in batches of `config.sample.batch_size`."""
  config, devices = restored.config, restored.mesh.size
  num_chains = config.chains.num_chains
  cycle = chains_lib.cycle(config)
  steps = frame_steps(length(config), cycle)
  # Within a cycle of annealing the steps are large, and images are unfinished.
  ends = np.flatnonzero(steps % cycle == 0)
  # The first frame is the start, and a chain takes at least one step.
  trained, sampled = (
    1 + int(np.abs(steps[ends][1:] - num).argmin())
    for num in (config.langevin.num_steps, config.evaluate.num_steps)
  )
  marks = ends[image_frames(len(ends), (trained, sampled))]
  trained = int(ends[trained])
  size = -(-min(num_chains, config.sample.batch_size) // devices) * devices
  starts = range(0, num_chains, size)
  compiled = _compile(restored)
  progress = tqdm.tqdm(
    total=len(starts) * int(steps[-1]),
    desc="long-run chains",
    unit="step",
    delay=2,  # seconds, so that short chains show no bar
    disable=jax.process_index() > 0,
  )
  with progress:
    parts = [
      _run_batch(
        restored, compiled, start + np.arange(size), steps, marks, progress
      )
      for start in starts
    ]
  energies, saturation, shown = (
    np.concatenate(arrays, 1)[:, :num_chains]
    for arrays in list(zip(*parts, strict=True))[:3]
  )
  norms = np.mean([norms for *_, norms in parts], 0)
  return _Run(steps, energies, marks, shown, saturation, norms, trained)


def _run_batch(restored, compiled, indices, steps, marks, progress):
  """Runs the chains with the given indices.

  Returns:
    Energies of all frames `[frames, batch]`, saturation and images of the
    marked frames, and drift norms `[2]`.
  """
  start, advance = compiled
  rng = rng_lib.stream(jax.random.key(restored.config.seed), "sample")
  rngs = rng_lib.per_index(rng, jnp.asarray(indices))
  state, frame = start(restored.variables, rngs)
  energies, shown, norms = [], [], np.zeros(2)
  for i, step in enumerate(steps):
    if i:
      taken = int(step - steps[i - 1])
      state, frame, drift = advance(
        restored.variables, rngs, state, steps[i - 1], num_steps=taken
      )
      norms += taken * sharding.fetch(drift).mean(0, np.float64)
      progress.update(taken)
    energies.append(sharding.fetch(frame.energy))
    if i in marks:
      shown.append(sharding.fetch((frame.saturation, frame.images)))
  saturation, shown = (np.stack(arrays) for arrays in zip(*shown, strict=True))
  return np.stack(energies).astype(float), saturation, shown, norms / steps[-1]


def _look(
  model: networks.Networks, variables: Any, state: langevin.State
) -> _Frame:
  """Measures chains in a state."""
  hat_fn, generator_fn = chains_lib.bind(model, variables)
  x = generator_fn(state.z) + state.y
  # Values that are not numbers count as outside.
  saturation = 1 - (jnp.abs(x) <= 1).mean((1, 2, 3))
  return _Frame(hat_fn(x), saturation, pixels.to_uint8(x))


def _compile(restored: sample.Restored) -> tuple[Callable, Callable]:
  """Compiles the start of chains and a piece of chains.

  Returns:
    Two functions: `(variables, rngs) -> (state, frame)`, and `(variables, rngs,
    state, first_step, num_steps) -> (state, frame, drift_norms)`, where
    `drift_norms` is `[devices, 2]`.
  """
  model = restored.networks
  plan = chains_lib.evaluation_plan(restored.config)

  def start(variables, rngs):
    state = chains_lib.start(model, plan, rngs)
    return state, _look(model, variables, state)

  def advance(num_steps, variables, rngs, state, first_step):
    piece = plan._replace(settings=plan.settings._replace(num_steps=num_steps))
    state, info = chains_lib.advance(
      model, piece, variables, rngs, state, first_step
    )
    norms = jnp.stack([info.drift_norm_y.mean(), info.drift_norm_z.mean()])
    return state, _look(model, variables, state), norms[None]

  def split(fn, replicated):
    method = restored.config.sharding.chains
    return chains_lib.over_devices(fn, restored.mesh, method, replicated)

  @functools.partial(jax.jit, static_argnames="num_steps")
  def call(*args, num_steps):
    return split(functools.partial(advance, num_steps), (0, 3))(*args)

  return jax.jit(split(start, (0,))), call


def _data_energy(restored: sample.Restored, reference: np.ndarray) -> float:
  """Returns the mean energy of reference images, of 1,000 if there are more."""
  num = min(len(reference), _DATA_IMAGES)
  chosen = np.linspace(0, len(reference) - 1, num).round().astype(int)
  found = energies_lib.scorer(restored)(reference[chosen])
  return float(found.mean(dtype=np.float64))


def _neighbours(run: _Run, reference: np.ndarray) -> np.ndarray:
  """Shows samples and their nearest references, a row for each sample."""
  mark = int(np.flatnonzero(run.marks == run.trained)[0])
  samples = run.images[mark, :_ROWS]
  count = min(_NEIGHBOURS, len(reference))
  found = chain_mixing.nearest(samples, reference, count)
  columns = [samples, *reference[found.indices.T]]
  return film_strip.tile(np.stack(columns))
