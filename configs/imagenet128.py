"""ImageNet synthesis at 128x128 (Hat EBM, table 2).

Command:   python -m hatebm_jax.main --config=configs/imagenet128.py \
             --workdir=DIR
Data:      The train split of tfds `imagenet2012` has 1,281,167 images. Their
           short sides are resized to 128 pixels, and a square is cut at a
           random place. JPEGs are decoded as TensorFlow does it.
Hardware:  A TPU v5e-8, or a v5e-16 or v4-32 (16 chips).
Published: FID 40.24 +- 0.18 (cited), with 49,920 samples and 150 Langevin
           steps.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.train.num_steps = 300_000
  config.data.source = "tfds:imagenet2012"
  config.data.image_size = 128
  config.data.crop = "random"
  config.data.jpeg_dct = "fast"
  config.model.width = 1024
  config.hat.learning_rate_drops = ((230_000, 1e-5), (260_000, 1e-6))
  config.hat.max_grad_norm = 50.0
  config.generator.learning_rate = 5e-5
  config.generator.learning_rate_drops = ((230_000, 1e-5), (260_000, 1e-6))
  config.evaluate.num_steps = 150
  config.lock()
  return config
