"""The digits autoencoder that digits_retrofit.py starts from.

Command:   python -m hatebm_jax.main --config=configs/digits_autoencoder.py \
             --workdir=runs/digits_autoencoder
Data:      scikit-learn's digits, as in configs/digits.py.
Hardware:  2 CPU cores need a few minutes.
"""

from hatebm_jax.configs import cifar10_autoencoder, digits


def get_config():
  """Returns the locked configuration."""
  config = cifar10_autoencoder.get_config()
  config.unlock()
  digits.use_digits(config)
  config.train.num_steps = 2_000
  config.train.log_every = 50
  config.train.image_every = 500
  config.train.checkpoint_every = 1_000
  config.train.test_every = 250
  config.generator.learning_rate = 1e-3
  config.generator.learning_rate_drops = ((1_000, 3e-4), (1_500, 1e-4))
  config.lock()
  return config
