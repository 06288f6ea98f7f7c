"""Long-run chains of a trained run: do they stay, do they mix, do they copy?

A hat that was trained with short chains promises nothing about longer ones:
their images may over-saturate (Nijkamp et al., AAAI 2020) or stand still. Here
chains run `config.chains.multiple` times as long as those that trained the hat.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from hatebm_jax import chains as chains_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  errors,
  images,
  langevin,
  networks,
  pixels,
  sample,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.evaluation import out_of_distribution as detect
from hatebm_jax.metrics import chains as chain_metrics

_ENERGY_FRAMES = 200  # at most, besides the start
_IMAGE_FRAMES = 9
_DATA_IMAGES = 1_000  # whose mean energy is that of the data
_ROWS = 8  # chains in a picture
_NEIGHBOURS = 3  # training images beside a sample


class _Frame(NamedTuple):
  """Chains at one Langevin step; leading axis: chains."""

  energy: jax.Array  # H(G(z) + y)
  saturation: jax.Array  # share of pixels outside [-1, 1]
  images: jax.Array  # uint8


class _Run(NamedTuple):
  """Chains at the frames of a run.

  Attributes:
    steps: Langevin steps of all frames, `[frames]`.
    energies: `[frames, chains]`, float64.
    marks: which frames the images are of, `[marks]`.
    images: uint8 `[marks, chains, height, width, channels]`.
    saturation: `[marks, chains]`.
    drift_norms: of y and z, means over steps and chains.
    trained: the frame that the training chains' length comes nearest to; it is
      one of `marks`.
  """

  steps: np.ndarray
  energies: np.ndarray
  marks: np.ndarray
  images: np.ndarray
  saturation: np.ndarray
  drift_norms: np.ndarray
  trained: int


def measure(
  restored: sample.Restored,
  reference_images: np.ndarray,
  distance: Callable[[np.ndarray], float] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Runs parallel chains from fresh starts and looks at them.

  Chain i starts as the i-th sample of `sample.draw` does and draws the same
  noise, under the settings of evaluation. "Samples" are the chains at the
  frame next to the training chains' length, `config.langevin.num_steps`.

  Args:
    restored: of a run with a hat, from `sample.restore`.
    reference_images: training images, uint8
      `[n, height, width, channels]`.
    distance: Frechet distance of uint8 images to the training data; None: not
      measured.

  Returns:
    The figures, ready for JSON: None stands for what is not finite or cannot be
    had.
    - `ess`, `r_hat`, `stuck`: of the second half of the frames, see
      `metrics.chains.mixing`. Where R-hat is far above 1, do not trust `ess`.
    - `energy_gap`: mean H(reference images) - mean H(samples); of up to 1,000
      reference images, evenly spaced.
    - `drift_norm_y`, `drift_norm_z`: L2 norms an image (a latent), means over
      all steps and chains, with the chains that fill up the devices.
    - `curve`: Langevin step, mean energy, Frechet distance and share of pixels
      outside [-1, 1] at some frames. The distance is of no more images than
      there are chains, so it is biased upwards: compare it along the curve.

    And pictures by name, uint8 `[height, width, channels]`: `chains` (curves),
    `long_run` (a row a chain, a column an entry of `curve`), `nearest` (samples
    and, beside each, its nearest training images, nearest first).

  Raises:
    ConfigError: if the config asks for no chains.
  """
  config = restored.config
  _check(config.chains)
  run = _run(restored)
  data_energy = _data_energy(restored, reference_images)
  half = len(run.steps) // 2
  mixing = chain_metrics.mixing(run.energies[half:].T)
  result = {
    "num_chains": config.chains.num_chains,
    "num_steps": int(run.steps[-1]),
    "training_steps": config.langevin.num_steps,
    **mixing._asdict(),
    "energy_gap": _plain(data_energy - run.energies[run.trained].mean()),
    "drift_norm_y": _plain(run.drift_norms[0]),
    "drift_norm_z": _plain(run.drift_norms[1]),
    "curve": _curve(run, distance),
  }
  pictures = {
    "chains": plot(
      run.steps,
      run.energies,
      data_energy,
      config.langevin.num_steps,
      result["curve"],
    ),
    "long_run": images.film_strip(run.images[:, :_ROWS]),
    "nearest": _neighbours(run, reference_images),
  }
  return result, pictures


def _check(chains: Any) -> None:
  config_lib.check_group(chains, "chains")
  if chains.num_chains < 1:
    raise errors.ConfigError(
      f"config.chains.num_chains={chains.num_chains!r}: expected 1 or more, to "
      "run chains. Set it with --config.chains.num_chains=VALUE."
    )


def _plain(value: Any) -> float | None:
  """A Python number, or None where JSON has none."""
  return float(value) if np.isfinite(value) else None


def _curve(
  run: _Run, distance: Callable[[np.ndarray], float] | None
) -> list[dict[str, Any]]:
  """Describes the chains at the frames that have images."""
  curve = []
  for i, mark in enumerate(run.marks):
    energies = run.energies[mark]
    # An image that is not a number has no energy, but would have a distance:
    # it is black in uint8.
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


def frame_steps(num_steps: int) -> np.ndarray:
  """Returns the Langevin steps of frames: even, but for the last one's."""
  every = -(-num_steps // _ENERGY_FRAMES)
  return np.append(np.arange(0, num_steps, every), num_steps)


def image_frames(num_frames: int, trained: int) -> np.ndarray:
  """Returns the frames whose images are kept: about 9, log-spaced.

  Args:
    num_frames: of the run, 2 or more.
    trained: a frame, not the first, that the one next to it gives way to.
  """
  marks = np.geomspace(1, num_frames - 1, _IMAGE_FRAMES - 1).round().astype(int)
  marks[np.abs(np.log(marks / trained)).argmin()] = trained
  return np.unique([0, *marks, num_frames - 1])


def _run(restored: sample.Restored) -> _Run:
  """Runs the chains, `config.sample.batch_size` at a time."""
  config, devices = restored.config, restored.mesh.size
  num_chains = config.chains.num_chains
  steps = frame_steps(config.chains.multiple * config.langevin.num_steps)
  # The first frame is the start; a chain of training has taken a step.
  trained = 1 + int(np.abs(steps[1:] - config.langevin.num_steps).argmin())
  marks = image_frames(len(steps), trained)
  size = -(-min(num_chains, config.sample.batch_size) // devices) * devices
  starts = range(0, num_chains, size)
  compiled = _compile(restored)
  progress = tqdm.tqdm(
    total=len(starts) * int(steps[-1]),
    desc="long-run chains",
    unit="step",
    delay=2,  # seconds: short ones need no bar
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
  """Runs the chains of some indices.

  Returns:
    Energies of all frames `[frames, batch]`, saturation and images of those
    that are marked, and drift norms `[2]`.
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
  """Returns what there is to see of chains in a state."""
  hat_fn, generator_fn = chains_lib.bind(model, variables)
  x = generator_fn(state.z) + state.y
  # Written so that what is not a number lies outside.
  saturation = 1 - (jnp.abs(x) <= 1).mean((1, 2, 3))
  return _Frame(hat_fn(x), saturation, pixels.to_uint8(x))


def _compile(restored: sample.Restored) -> tuple[Callable, Callable]:
  """Compiles the start of chains, and a piece of them.

  Returns:
    start: `(variables, rngs) -> (state, frame)`.
    advance: `(variables, rngs, state, first_step, num_steps) -> (state, frame,
      drift norms [devices, 2])`.
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
  """Mean H of reference images; of many, of some of them."""
  num = min(len(reference), _DATA_IMAGES)
  chosen = np.linspace(0, len(reference) - 1, num).round().astype(int)
  found = detect.energy(restored, reference[chosen])
  return float(found.mean(dtype=np.float64))


def _neighbours(run: _Run, reference: np.ndarray) -> np.ndarray:
  """Shows samples and their nearest references: a row a sample."""
  mark = int(np.flatnonzero(run.marks == run.trained)[0])
  samples = run.images[mark, :_ROWS]
  count = min(_NEIGHBOURS, len(reference))
  found = chain_metrics.nearest(samples, reference, count)
  columns = [samples, *reference[found.indices.T]]
  return images.film_strip(np.stack(columns))


def plot(
  steps: np.ndarray,
  energies: np.ndarray,
  data_energy: float,
  training_steps: int,
  curve: list[dict[str, Any]],
) -> np.ndarray:
  """Draws the energies of chains and, where there are any, Frechet distances.

  Args:
    steps: Langevin steps, `[frames]`, the first 0.
    energies: `[frames, chains]`; what is not finite is left out.
    data_energy: mean energy of the data, a horizontal line.
    training_steps: length of the chains of training, a vertical line.
    curve: of `measure`.

  Returns:
    uint8 `[height, width, 3]`.
  """
  distances = [
    (point["step"], point["frechet_distance"])
    for point in curve
    if point["frechet_distance"] is not None
  ]
  panels = 2 if distances else 1
  figure = Figure(figsize=(8, 3.2 * panels), layout="constrained")
  canvas = backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots(panels, sharex=True, squeeze=False)[:, 0]
  shown = np.where(np.isfinite(energies), energies, np.nan)
  axes[0].plot(steps, shown, linewidth=0.7, alpha=0.7)
  if np.isfinite(data_energy):
    axes[0].axhline(data_energy, color="black", label="data, mean")
  axes[0].set_ylabel("energy H of each chain")
  if distances:
    axes[1].plot(*zip(*distances, strict=True), "o-", color="tab:blue")
    axes[1].set_ylabel("Fréchet distance")
  for ax in axes:
    ax.axvline(
      training_steps, color="black", linestyle="--", label="training length"
    )
    ax.grid(alpha=0.3)
  axes[0].legend(fontsize=8)
  # Logarithmic but for the first frames, so that it has a place for step 0.
  axes[-1].set_xscale("symlog", linthresh=int(steps[1]))
  axes[-1].set_xlim(0, steps[-1])
  axes[-1].set_xlabel("Langevin step")
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def table(found: dict[str, Any]) -> list[str]:
  """Lays out the figures that `measure` returns, for people."""
  shown = lambda value: "none" if value is None else f"{value:.3g}"
  return [
    f"{found['num_chains']} chains of {found['num_steps']} Langevin steps "
    f"({found['training_steps']} in training): effective sample size "
    f"{shown(found['ess'])}, R-hat {shown(found['r_hat'])}, "
    f"{found['stuck']} stuck, energy gap {shown(found['energy_gap'])}"
  ]


def write(path: pathlib.Path, pictures: dict[str, np.ndarray]) -> None:
  """Writes the pictures of `measure` as evaluation_NAME.png.

  Args:
    path: the workdir.
    pictures: uint8 `[height, width, channels]`, by name.
  """
  for name, picture in pictures.items():
    images.write_png(path / f"evaluation_{name}.png", picture)
