"""CIFAR-10 retrofit, drawn from averaged weights.

Command:   python -m hatebm_jax.main \
             --config=configs/cifar10_retrofit_plus.py --workdir=DIR \
             --config.generator.source=runs/cifar10_autoencoder
Source:    As in configs/cifar10_retrofit.py.
Data:      As in configs/cifar10_retrofit.py.
Hardware:  As in configs/cifar10_retrofit.py. Training is the same.
Measured:  Nothing at this size. See docs/training.md.
"""

from hatebm_jax.configs import cifar10_retrofit


def get_config():
  """Returns the locked configuration."""
  config = cifar10_retrofit.get_config()
  config.unlock()
  config.sample.weights = "averaged"
  config.lock()
  return config
