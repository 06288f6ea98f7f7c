"""Checks the sizes that the paper's networks are made for."""

from collections.abc import Mapping

from hatebm_jax import errors


def widths(
  image_size: int,
  width: int,
  divisors: Mapping[int, tuple[int, ...]],
  field: str = "model.width",
) -> tuple[int, ...]:
  """Returns the number of channels of each block.

  Args:
    image_size: Height and width of the images in pixels.
    width: Base width `ngf` of the network.
    divisors: By image size, the divisor of the base width for each block.
    field: Field of the config that sets the width.

  Raises:
    ConfigError: If the network does not exist for this size, or a divisor does
      not divide the width.
  """
  if image_size not in divisors:
    raise errors.ConfigError(
      f"config.data.image_size={image_size}: the paper's networks exist for "
      f"{sorted(divisors)}; choose one of them."
    )
  largest = max(divisors[image_size])
  if width < 1 or width % largest:
    raise errors.ConfigError(
      f"config.{field}={width}: at image size {image_size} it must be a "
      f"positive multiple of {largest}."
    )
  return tuple(width // divisor for divisor in divisors[image_size])
