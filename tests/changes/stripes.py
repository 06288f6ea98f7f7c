"""A source of images: `stripes:N`, N images of horizontal stripes."""

import numpy as np
from PIL import Image

from hatebm_jax.data import base, decode


def open_stripes(count, config, split):
  """Opens the source; its splits have the same images."""
  size = config.image_size

  def read(indices):
    for i in indices:
      rows = 255 * (np.arange(size) // (1 + i % 4) % 2)
      image = np.repeat(rows[:, None], size, 1).astype(np.uint8)
      yield decode.fit(
        Image.fromarray(image), size, config.channels, config.crop
      )

  return base.Source(f"stripes {split}", int(count), size, read)
