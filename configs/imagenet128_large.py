"""ImageNet synthesis at 128x128 with the large networks (Hat EBM, table 2).

Command:   python -m hatebm_jax.main --config=configs/imagenet128_large.py \
             --workdir=DIR
Data:      The same as in configs/imagenet128.py.
Hardware:  A TPU v5e-16 (16 chips), or a v4-64 (32 chips) or larger.
Published: FID 29.37 +- 0.15 (cited), with 49,920 samples and 125 Langevin
           steps.
"""

from hatebm_jax.configs import imagenet128


def get_config():
  """Returns the locked configuration."""
  config = imagenet128.get_config()
  config.unlock()
  config.model.width = 2048
  config.evaluate.num_steps = 125
  config.lock()
  return config
