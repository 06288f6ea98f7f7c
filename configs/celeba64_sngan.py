"""The CelebA SN-GAN that celeba64_refine.py starts from (torch-mimicry's).

Command:   python -m hatebm_jax.main --config=configs/celeba64_sngan.py \
             --workdir=runs/celeba64_sngan
Data:      tfds `celeb_a`, train split, 162,770 images, centre square resized;
           5 batches a step
Hardware:  a TPU v3-8 or v4-8 host, or a GPU of 80 GB
Published: FID 6.13 +- 0.03 (cited), 49,920 samples
"""

from hatebm_jax.configs import cifar10_sngan


def get_config():
  """Returns the locked configuration."""
  config = cifar10_sngan.get_config()
  config.unlock()
  config.data.source = "tfds:celeb_a"
  config.data.image_size = 64
  config.model.width = 1024
  config.sngan.discriminator_width = 1024
  config.lock()
  return config
