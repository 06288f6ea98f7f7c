"""scikit-learn's digits at 16x16: the example that needs no download.

Command:   python -m hatebm_jax.main --config=configs/digits.py \
             --workdir=runs/digits
Data:      1,437 of the 1,797 handwritten digits that come with scikit-learn.
Hardware:  2 CPU cores need about 10 minutes.
"""

from hatebm_jax import config as config_lib


def use_digits(config):
  """Sets the fields that all experiments on the digits share."""
  config.train.batch_size = 32
  config.train.average_decay = 0.998
  config.data.source = "digits"
  config.data.image_size = 16
  config.data.channels = 1
  config.model.width = 32


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  use_digits(config)
  # What a short run lacks is updates. With 8 images and 10 Langevin steps, a
  # training step costs a sixth of one with 32 images and 20 Langevin steps.
  # The race of recipes (experiments/race) has the figures.
  config.train.num_steps = 10_000
  config.train.batch_size = 8
  config.langevin.num_steps = 10
  # In the last quarter many chains go on from the bank, so that they last.
  config.langevin.replay_share = 0.75
  config.langevin.replay_from = 7_500
  # Most background pixels of a digit are exactly black. Without this noise the
  # hat becomes steeper and steeper there, until the chain overshoots and
  # training diverges. experiments/digits saw it after 1,300 steps.
  config.hat.data_epsilon = 0.03
  config.hat.learning_rate = 1.2e-3
  config.hat.learning_rate_drops = ((5_000, 4e-4), (7_500, 1.2e-4))
  config.generator.learning_rate = 1.2e-3
  config.generator.learning_rate_drops = ((5_000, 4e-4), (7_500, 1.2e-4))
  config.generator.bank_size = 1_000
  # More steps than in training sharpen the samples.
  config.evaluate.num_steps = 25
  config.sample.weights = "averaged"
  config.lock()
  return config
