"""The digits SN-GAN that digits_refine.py starts from.

Command:   python -m hatebm_jax.main --config=configs/digits_sngan.py \
             --workdir=runs/digits_sngan
Data:      scikit-learn's digits, as in configs/digits.py. A training step
           reads 2 batches.
Hardware:  2 CPU cores need a few minutes.
"""

from hatebm_jax.configs import cifar10_sngan, digits


def get_config():
  """Returns the locked configuration."""
  config = cifar10_sngan.get_config()
  config.unlock()
  digits.use_digits(config)
  config.train.num_steps = 3_000
  # These rates are more than twice the published ones, because 3,000 steps are
  # few.
  config.generator.learning_rate = 5e-4
  config.sngan.discriminator_learning_rate = 5e-4
  config.sngan.discriminator_width = 32
  config.sngan.discriminator_steps = 2
  config.sngan.decay_steps = 3_000
  config.lock()
  return config
