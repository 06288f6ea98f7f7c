"""CelebA refinement at 64x64: a hat on the generator of an SN-GAN (Hat EBM).

Command:   python -m hatebm_jax.main --config=configs/celeba64_refine.py \
             --workdir=DIR --config.generator.source=runs/celeba64_sngan
Source:    a run of celeba64_sngan.py, or torch-mimicry's netG.pth after
           `python -m hatebm_jax.convert mimicry netG.pth OUT.npz`
Data:      tfds `celeb_a`, train split, 162,770 images, centre square resized
Hardware:  a TPU v3-8 or v4-8 host, or a GPU of 80 GB
Published: FID 5.98 +- 0.02 (cited), 49,920 samples, 125 Langevin steps; the
           SN-GAN alone 6.13 +- 0.03, with DDLS 6.06 +- 0.01
"""

from hatebm_jax.configs import cifar10_refine


def get_config():
  """Returns the locked configuration."""
  config = cifar10_refine.get_config()
  config.unlock()
  config.data.source = "tfds:celeb_a"
  config.data.image_size = 64
  config.model.width = 1024
  config.langevin.num_steps = 100
  config.langevin.temperature = 1e-6
  config.evaluate.num_steps = 125
  config.evaluate.tau = None  # as in training: there is no prior on y
  config.lock()
  return config
