"""CelebA synthesis at 64x64 with settings that the paper does not have.

Command:   python -m hatebm_jax.main --config=configs/celeba64_plus.py \
             --workdir=DIR
Data:      As in configs/celeba64.py.
Hardware:  As in configs/celeba64.py. A training step costs the same.
Measured:  Nothing. See configs/cifar10_plus.py.
"""

from hatebm_jax.configs import celeba64, cifar10_plus


def get_config():
  """Returns the locked configuration."""
  config = celeba64.get_config()
  config.unlock()
  cifar10_plus.use_plus(config)
  config.lock()
  return config
