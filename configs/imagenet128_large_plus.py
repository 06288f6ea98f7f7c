"""ImageNet synthesis with the large networks, and settings that are not the paper's.

Command:   python -m hatebm_jax.main --config=configs/imagenet128_large_plus.py \
             --workdir=DIR
Data:      As in configs/imagenet128_large.py.
Hardware:  As in configs/imagenet128_large.py. A training step costs the same.
Measured:  Nothing. configs/cifar10_plus.py says why these settings may help.
"""

from hatebm_jax.configs import cifar10_plus, imagenet128_large


def get_config():
  """Returns the locked configuration."""
  config = imagenet128_large.get_config()
  config.unlock()
  cifar10_plus.use_plus(config)
  config.lock()
  return config
