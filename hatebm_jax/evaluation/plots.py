"""Plots of an evaluation, as arrays of pixels.

Matplotlib is imported by the first plot, because its import takes half a second
that the start of every command would wait for.
"""

from typing import Any

import numpy as np

_BINS = 60


def histograms(energies: dict[str, list[np.ndarray]]) -> np.ndarray:
  """Draws histograms of energies with one panel for each OOD set.

  Args:
    energies: Energies by the name of the OOD set. Each entry holds those of the
      in-distribution images and those of the OOD images.

  Returns:
    uint8 `[height, width, 3]`.
  """
  figure = _figure(6, 3 * len(energies))
  axes = figure.subplots(len(energies), squeeze=False)[:, 0]
  for ax, (name, (inside, outside)) in zip(axes, energies.items(), strict=True):
    both = np.concatenate([inside, outside])
    bins = np.linspace(*np.quantile(both, (0.001, 0.999)), _BINS)
    for values, label in ((inside, "in-distribution"), (outside, name)):
      ax.hist(values, bins, density=True, alpha=0.6, label=label)
    ax.set_xlabel("energy H(x)")
    ax.set_yticks([])
    ax.legend(fontsize=8)
  return _pixels(figure)


def chains(
  steps: np.ndarray,
  energies: np.ndarray,
  data_energy: float,
  training_steps: int,
  curve: list[dict[str, Any]],
) -> np.ndarray:
  """Draws the energies of chains and, if they are known, Frechet distances.

  Args:
    steps: Langevin steps `[frames]`; the first one is 0.
    energies: Energies `[frames, chains]`. Values that are not finite are left
      out.
    data_energy: Mean energy of the data, drawn as a horizontal line.
    training_steps: Length of the training chains, drawn as a vertical line.
    curve: Points of the curve in evaluation.json.

  Returns:
    uint8 `[height, width, 3]`.
  """
  distances = [
    (point["step"], point["frechet_distance"])
    for point in curve
    if point["frechet_distance"] is not None
  ]
  panels = 2 if distances else 1
  figure = _figure(8, 3.2 * panels)
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
  # The first frames have a linear scale, so that step 0 has a place.
  axes[-1].set_xscale("symlog", linthresh=int(steps[1]))
  axes[-1].set_xlim(0, steps[-1])
  axes[-1].set_xlabel("Langevin step")
  return _pixels(figure)


def checkpoints(points: list[dict[str, Any]], name: str) -> np.ndarray:
  """Draws a distance against the training step of checkpoints.

  Args:
    points: Dicts with `step`, `weights`, `mean` and `std`, which may be None.
    name: Name of the distance.

  Returns:
    uint8 `[height, width, 3]`.
  """
  figure = _figure(8, 4)
  ax = figure.subplots()
  for weights in sorted({point["weights"] for point in points}):
    line = [point for point in points if point["weights"] == weights]
    steps, means = ([point[key] for point in line] for key in ("step", "mean"))
    spread = [point["std"] or 0 for point in line]
    ax.errorbar(steps, means, spread, fmt="o-", label=f"{weights} weights")
  ax.set_xlabel("training step of the checkpoint")
  ax.set_ylabel(name)
  ax.set_ylim(bottom=0)
  ax.grid(alpha=0.3)
  ax.legend(fontsize=8)
  return _pixels(figure)


def _figure(width: float, height: float) -> Any:
  """Returns an empty figure of Matplotlib, with its size in inches."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), layout="constrained")


def _pixels(figure: Any) -> np.ndarray:
  """Renders a figure to uint8 `[height, width, 3]`."""
  from matplotlib.backends import backend_agg

  figure.set_dpi(100)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()
