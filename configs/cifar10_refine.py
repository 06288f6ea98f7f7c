"""CIFAR-10 refinement (Hat EBM): a hat on the generator of an SN-GAN.

Command:   python -m hatebm_jax.main --config=configs/cifar10_refine.py \
             --workdir=DIR --config.generator.source=OUT.npz
Source:    The paper's own SN-GAN, whose batch norm has epsilon 1e-3. It is the
           reference's gen.ckpt after `python -m hatebm_jax.convert tf2
           gen.ckpt OUT.npz --out_factor=1`. A run of cifar10_sngan.py, and
           torch-mimicry's netG.pth after `python -m hatebm_jax.convert mimicry
           netG.pth OUT.npz`, need --config.generator.norm_epsilon=1e-5.
Data:      The train split of tfds `cifar10` has 50,000 images.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 24 GB.
Published: FID 14.04 +- 0.11 (cited), with 49,920 samples and 350 Langevin
           steps. The paper's SN-GAN alone has 18.58 +- 0.08, and
           14.59 +- 0.07 with DDLS. Nothing is published for a hat on
           torch-mimicry's SN-GAN, which alone has 16.77.
"""

from hatebm_jax import config as config_lib


def get_config():
  """Returns the locked configuration."""
  config = config_lib.default()
  config.objective = "joint"
  config.train.num_steps = 25_000
  config.generator.out_factor = 1.0
  config.langevin.num_steps = 250
  config.langevin.step_size_y = 1e-4
  config.langevin.step_size_z = 5e-3
  config.langevin.temperature = 1e-3
  config.hat.learning_rate = 1e-5
  config.evaluate.num_steps = 350
  config.evaluate.tau = 1 / (2 * 0.25**2)
  config.evaluate.init_scale_y = 0.0
  config.lock()
  return config
