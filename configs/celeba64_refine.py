"""CelebA refinement at 64x64 (Hat EBM): a hat on the generator of an SN-GAN.

Command:   python -m hatebm_jax.main --config=configs/celeba64_refine.py \
             --workdir=DIR --config.generator.source=OUT.npz
Source:    The paper's own SN-GAN, whose batch norm has epsilon 1e-3. It is the
           reference's gen.ckpt after `python -m hatebm_jax.convert tf2
           gen.ckpt OUT.npz --out_factor=1`. A run of celeba64_sngan.py, and
           torch-mimicry's netG.pth after `python -m hatebm_jax.convert mimicry
           netG.pth OUT.npz`, need --config.generator.norm_epsilon=1e-5.
Data:      The train split of tfds `celeb_a` has 162,770 images. Their centre
           squares are resized. JPEGs are decoded as TensorFlow does it.
Hardware:  One TPU v3-8 or v4-8 host, or one GPU of 80 GB.
Published: FID 5.98 +- 0.02 (cited), with 49,920 samples and 125 Langevin
           steps. The paper's SN-GAN alone has 6.13 +- 0.03, and 6.06 +- 0.01
           with DDLS. Nothing is published for a hat on torch-mimicry's SN-GAN,
           which alone has 5.71.
"""

from hatebm_jax.configs import cifar10_refine


def get_config():
  """Returns the locked configuration."""
  config = cifar10_refine.get_config()
  config.unlock()
  config.data.source = "tfds:celeb_a"
  config.data.image_size = 64
  config.data.jpeg_dct = "fast"
  config.model.width = 1024
  config.langevin.num_steps = 100
  config.langevin.temperature = 1e-6
  config.evaluate.num_steps = 125
  # None means the value of training, which has no prior on y.
  config.evaluate.tau = None
  config.lock()
  return config
