"""Digits retrofit: a hat on the decoder of an autoencoder.

Command:   python -m hatebm_jax.main --config=configs/digits_retrofit.py \
             --workdir=runs/digits_retrofit \
             --config.generator.source=runs/digits_autoencoder
Source:    The decoder is a run of digits_autoencoder.py.
Data:      scikit-learn's digits, as in configs/digits.py.
Hardware:  2 CPU cores need a few minutes.
"""

from hatebm_jax.configs import cifar10_retrofit, digits


def get_config():
  """Returns the locked configuration."""
  config = cifar10_retrofit.get_config()
  config.unlock()
  digits.use_digits(config)
  config.train.num_steps = 1_000
  config.langevin.num_steps = 30
  config.langevin.temperature = 1e-8
  config.hat.learning_rate = 4e-4
  config.hat.learning_rate_drops = ((600, 1.5e-4),)
  config.hat.data_epsilon = 0.03
  config.evaluate.num_steps = 40
  config.lock()
  return config
