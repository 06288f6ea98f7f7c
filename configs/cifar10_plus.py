"""CIFAR-10 synthesis with settings that the paper does not have.

Command:   python -m hatebm_jax.main --config=configs/cifar10_plus.py \
             --workdir=DIR
Data:      As in configs/cifar10.py.
Hardware:  As in configs/cifar10.py. A training step costs the same.
Measured:  Nothing at this size. experiments/race measured what these settings
           do in short runs of small networks.
"""

from hatebm_jax.configs import cifar10


def use_plus(config):
  """Sets the fields that differ from the published config.

  Args:
    config: An unlocked config of synthesis.
  """
  # The squared step sizes fall tenfold in a chain, which keeps training stable.
  config.langevin.annealing = 10.0
  # In the last quarter of the run many chains go on from the bank, so that
  # long chains last.
  config.langevin.replay_share = 0.75
  config.langevin.replay_from = 3 * config.train.num_steps // 4
  config.sample.weights = "averaged"
  # Chains as long as the published ones, but whole cycles of the annealing.
  config.evaluate.num_steps -= (
    config.evaluate.num_steps % config.langevin.num_steps
  )


def get_config():
  """Returns the locked configuration."""
  config = cifar10.get_config()
  config.unlock()
  use_plus(config)
  config.lock()
  return config
