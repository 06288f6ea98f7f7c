"""scikit-learn's digits at 16x16: the example that needs no download.

Command:   python -m hatebm_jax.main --config=configs/digits.py \
             --workdir=runs/digits
Data:      1,437 of the 1,797 handwritten digits that scikit-learn ships
Hardware:  2 CPU cores, at most 10 minutes
"""

from configs import default


def get_config():
  """Returns the locked configuration."""
  config = default.get_config()
  config.train.num_steps = 2_000
  config.train.batch_size = 32
  config.data.source = "digits"
  config.data.image_size = 16
  config.data.channels = 1
  config.model.width = 32
  config.langevin.num_steps = 30
  config.hat.learning_rate = 3e-4
  config.generator.learning_rate = 3e-4
  config.generator.bank_size = 1_000
  config.train.average_decay = 0.999
  config.evaluate.num_steps = 60
  config.lock()
  return config
