"""The CIFAR-10 autoencoder that cifar10_retrofit.py starts from (Hat EBM).

Command:   python -m hatebm_jax.main --config=configs/cifar10_autoencoder.py \
             --workdir=runs/cifar10_autoencoder
Data:      The train split of tfds `cifar10` has 50,000 images.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 24 GB.
Published: There is no figure for it. It is trained for 100 epochs of 499
           batches.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.objective = "autoencoder"
  config.train.num_steps = 100 * 499
  config.train.log_every = 499
  config.train.image_every = 5 * 499
  config.train.checkpoint_every = 5 * 499
  config.train.test_every = 5 * 499
  config.generator.kind = "decoder"
  config.lock()
  return config
