"""CelebA synthesis at 64x64 (Hat EBM, table 2).

Command:   python -m hatebm_jax.main --config=configs/celeba64.py --workdir=DIR
Data:      The train split of tfds `celeb_a` has 162,770 images. Their centre
           squares are resized. JPEGs are decoded as TensorFlow does it.
Hardware:  A TPU v5e-8 (8 chips), or one GPU of 80 GB.
Published: FID 11.57 +- 0.04 (cited), with 49,920 samples and 100 Langevin
           steps.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.data.source = "tfds:celeb_a"
  config.data.image_size = 64
  config.data.jpeg_dct = "fast"
  config.model.width = 1024
  config.evaluate.num_steps = 100
  config.lock()
  return config
