"""Draws the metrics of a run against the training step."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANELS = {
  "energy_gap": "H(data) - H(samples)",
  "discriminator_loss": "discriminator loss (hinge)",
  "reconstruction_loss": "reconstruction loss, 1000 x mean square error",
  "test_loss": "reconstruction loss, test split",
  "generator_loss": "generator loss",
  "drift_norm_y": "L2 norm of the drift of y per step",
  "drift_norm_z": "L2 norm of the drift of z per step",
  "clip_rate_y": "share of Langevin steps with a clipped drift of y",
  "norm_z": "||z|| at the end of the chains",
  "saturation": "share of sample pixels outside [-1, 1]",
}

# These colours are readable on a white page and on a black one.
_INK, _LINE, _MARK = "#777777", "#2f80d0", "#d0552f"


def panels(lines: Sequence[dict[str, float]]) -> dict[str, str]:
  """Returns the titles of the panels that the metrics fill, by name."""
  return {k: v for k, v in PANELS.items() if any(k in line for line in lines)}


def draw(
  ax: Axes,
  lines: Sequence[dict[str, float]],
  name: str,
  marks: Sequence[int] = (),
) -> None:
  """Draws one metric against the training step.

  Args:
    ax: Axes to draw on.
    lines: Lines that `workdir.read_metrics` returns.
    name: Name of the metric, one of `panels(lines)`.
    marks: Training steps that are marked by a vertical line.
  """
  having = [line for line in lines if name in line]
  steps = [line["step"] for line in having]
  if name == "energy_gap":
    # The energy gap spikes by orders of magnitude and changes its sign.
    ax.set_yscale("symlog", linthresh=1e-3)
  ax.plot(steps, [line[name] for line in having], color=_LINE, linewidth=1)
  for step in marks:
    ax.axvline(step, color=_MARK, linewidth=1, linestyle="--")
  ax.set_title(PANELS[name], fontsize=10, color=_INK)
  ax.set_xlabel("training step", color=_INK)
  ax.tick_params(colors=_INK)
  ax.spines[:].set_color(_INK)
  ax.grid(alpha=0.3)


def svg(
  lines: Sequence[dict[str, float]], name: str, marks: Sequence[int] = ()
) -> str:
  """Returns one panel as an SVG document.

  Args:
    lines: Lines that `workdir.read_metrics` returns.
    name: Name of the metric, one of `panels(lines)`.
    marks: Training steps that are marked by a vertical line.
  """
  figure = Figure(figsize=(4, 2.6), layout="constrained")
  draw(figure.subplots(), lines, name, marks)
  buffer = io.StringIO()
  # The salt and the missing date make the text depend on the run alone.
  with matplotlib.rc_context({"svg.hashsalt": name}):
    figure.savefig(
      buffer, format="svg", transparent=True, metadata={"Date": None}
    )
  return buffer.getvalue()
