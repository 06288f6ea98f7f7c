"""The default of every field, from which all experiments start.

Command:   python -m hatebm_jax.main --config=default --workdir=DIR
Data:      Your own images, or the train split of tfds `cifar10`.

These are the settings of CIFAR-10 synthesis (configs/cifar10.py). A config of
your own may start from this one or from that of any experiment.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.lock()
  return config
