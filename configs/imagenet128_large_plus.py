"""ImageNet synthesis with large networks and settings not of the paper.

Command:   python -m hatebm_jax.main \
             --config=configs/imagenet128_large_plus.py --workdir=DIR
Data:      As in configs/imagenet128_large.py.
Hardware:  As in configs/imagenet128_large.py. A training step costs the same.
Measured:  Nothing. See configs/cifar10_plus.py.
"""

from hatebm_jax.configs import cifar10_plus, imagenet128_large


def get_config():
  """Returns the locked configuration."""
  config = imagenet128_large.get_config()
  config.unlock()
  cifar10_plus.use_plus(config)
  config.lock()
  return config
