"""The CelebA SN-GAN of torch-mimicry, a start for celeba64_refine.py.

Command:   python -m hatebm_jax.main --config=configs/celeba64_sngan.py \
             --workdir=runs/celeba64_sngan
Data:      The train split of tfds `celeb_a` has 162,770 images. Their centre
           squares are resized. A training step reads 5 batches.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 80 GB.
Published: FID 5.71 (cited), by torch-mimicry (Lee and Town 2020), whose recipe
           and batch-norm epsilon, 1e-5, this is; it is trained on all images of
           CelebA there. The paper refines an SN-GAN of its own, with epsilon
           1e-3, which has 6.13 +- 0.03.
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
