"""A metric: the mean brightness of the images."""

from hatebm_jax.metrics.metric import Figure, Reference, Sample

FIGURES = (
  Figure(
    "brightness",
    "brightness",
    decimals=1,
    note="Brightness: mean of all pixels, from 0 to 255.",
  ),
)


def figures(sample: Sample, reference: Reference) -> dict[str, float]:
  """Returns the mean of all pixels."""
  del reference  # Brightness is not relative to anything.
  return {"brightness": float(sample.images.mean())}
