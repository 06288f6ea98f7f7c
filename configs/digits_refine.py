"""Digits refinement: a hat on the generator of an SN-GAN.

Command:   python -m hatebm_jax.main --config=configs/digits_refine.py \
             --workdir=runs/digits_refine \
             --config.generator.source=runs/digits_sngan
Source:    The generator is a run of digits_sngan.py.
Data:      scikit-learn's digits, as in configs/digits.py.
Hardware:  2 CPU cores need a few minutes.
"""

from hatebm_jax.configs import cifar10_refine, digits


def get_config():
  """Returns the locked configuration."""
  config = cifar10_refine.get_config()
  config.unlock()
  digits.use_digits(config)
  config.train.num_steps = 700
  config.generator.norm_epsilon = 1e-5  # configs/digits_sngan.py has it.
  config.langevin.num_steps = 20
  config.langevin.step_size_y = 2e-3
  config.langevin.temperature = 1e-6
  # At a higher rate, or with more steps at this rate, the chains cannot follow
  # the hat: the drift of z grows and digits die out. See
  # experiments/digits_refine.
  config.hat.learning_rate = 3e-4
  config.hat.learning_rate_drops = ((400, 1e-4),)
  config.hat.data_epsilon = 0.03
  # Chains longer than in training lose diversity here.
  config.evaluate.num_steps = 20
  config.lock()
  return config
