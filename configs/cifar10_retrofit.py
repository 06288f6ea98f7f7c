"""CIFAR-10 retrofit (Hat EBM): a hat on the decoder of an autoencoder.

Command:   python -m hatebm_jax.main --config=configs/cifar10_retrofit.py \
             --workdir=DIR --config.generator.source=runs/cifar10_autoencoder
Source:    The decoder is a run of cifar10_autoencoder.py, or the reference's
           gen.ckpt after `python -m hatebm_jax.convert tf2 gen.ckpt OUT.npz
           --out_factor=2`.
Data:      The train split of tfds `cifar10` has 50,000 images.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 24 GB.
Published: FID 26.01 (cited), with 49,920 samples and 125 Langevin steps.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.objective = "joint"
  config.train.num_steps = 25_000
  config.generator.kind = "decoder"
  config.langevin.num_steps = 100
  config.langevin.step_size_z = 1e-3
  config.langevin.temperature = 1e-3
  config.langevin.tau = 1 / (2 * 0.1**2)
  config.hat.data_epsilon = 1e-2
  config.lock()
  return config
