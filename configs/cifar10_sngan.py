"""The CIFAR-10 SN-GAN of torch-mimicry, a start for cifar10_refine.py.

Command:   python -m hatebm_jax.main --config=configs/cifar10_sngan.py \
             --workdir=runs/cifar10_sngan
Data:      The train split of tfds `cifar10` has 50,000 images. A training
           step reads 5 batches.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 24 GB.
Published: FID 16.77 (cited), by torch-mimicry (Lee and Town 2020), whose recipe
           and batch-norm epsilon, 1e-5, this is. The paper refines an SN-GAN of
           its own, with epsilon 1e-3, which has 18.58 +- 0.08.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.objective = "sngan"
  config.train.num_steps = 100_000
  config.train.batch_size = 64
  config.generator.learning_rate = 2e-4
  config.generator.out_factor = 1.0
  config.generator.norm_epsilon = 1e-5
  config.lock()
  return config
