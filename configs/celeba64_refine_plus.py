"""CelebA refinement, drawn from averaged weights.

Command:   python -m hatebm_jax.main --config=configs/celeba64_refine_plus.py \
             --workdir=DIR --config.generator.source=OUT.npz
Source:    As in configs/celeba64_refine.py.
Data:      As in configs/celeba64_refine.py.
Hardware:  As in configs/celeba64_refine.py. Training is the same.
Measured:  Nothing at this size. See docs/training.md.
"""

from hatebm_jax.configs import celeba64_refine


def get_config():
  """Returns the locked configuration."""
  config = celeba64_refine.get_config()
  config.unlock()
  config.sample.weights = "averaged"
  config.lock()
  return config
