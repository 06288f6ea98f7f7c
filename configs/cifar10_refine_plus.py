"""CIFAR-10 refinement, drawn from averaged weights.

Command:   python -m hatebm_jax.main \
             --config=configs/cifar10_refine_plus.py --workdir=DIR \
             --config.generator.source=OUT.npz
Source:    As in configs/cifar10_refine.py.
Data:      As in configs/cifar10_refine.py.
Hardware:  As in configs/cifar10_refine.py. Training is the same.
Measured:  Nothing at this size. See docs/training.md.
"""

from hatebm_jax.configs import cifar10_refine


def get_config():
  """Returns the locked configuration."""
  config = cifar10_refine.get_config()
  config.unlock()
  config.sample.weights = "averaged"
  config.lock()
  return config
