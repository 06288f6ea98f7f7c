"""Which widths the paper's networks have at an image size."""

from collections.abc import Mapping

from hatebm_jax import errors


def widths(
  image_size: int, width: int, divisors: Mapping[int, tuple[int, ...]]
) -> tuple[int, ...]:
  """Returns the channels of each block.

  Args:
    image_size: height and width in pixels.
    width: base width `ngf` of the network.
    divisors: a block's share of the base width, by image size.

  Raises:
    ConfigError: for another size, or a width that the divisors do not divide.
  """
  if image_size not in divisors:
    raise errors.ConfigError(
      f"config.data.image_size={image_size}: the paper's networks exist for "
      f"{sorted(divisors)}; choose one of them."
    )
  largest = max(divisors[image_size])
  if width < 1 or width % largest:
    raise errors.ConfigError(
      f"config.model.width={width}: at image size {image_size} it must be a "
      f"positive multiple of {largest}."
    )
  return tuple(width // divisor for divisor in divisors[image_size])
