"""ImageNet synthesis at 128x128 with settings that the paper does not have.

Command:   python -m hatebm_jax.main --config=configs/imagenet128_plus.py \
             --workdir=DIR
Data:      As in configs/imagenet128.py.
Hardware:  As in configs/imagenet128.py. A training step costs the same.
Measured:  Nothing. See configs/cifar10_plus.py.
"""

from hatebm_jax.configs import cifar10_plus, imagenet128


def get_config():
  """Returns the locked configuration."""
  config = imagenet128.get_config()
  config.unlock()
  cifar10_plus.use_plus(config)
  config.lock()
  return config
