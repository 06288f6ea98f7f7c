"""The trained models that come with the repository."""

import child
import numpy as np
import pytest

from hatebm_jax import sample
from hatebm_jax.evaluation import image_quality
from hatebm_jax.metrics import recognised_digits
from hatebm_jax.run import workdir

RELEASES = child.ROOT / "experiments" / "releases"
NAMES = sorted(path.name for path in RELEASES.iterdir() if path.is_dir())


def restored(name, num_images):
  config = workdir.read_config(RELEASES / name)
  config.sample.num_images = config.sample.batch_size = num_images
  return sample.restore(config, RELEASES / name)


def test_they_are_small():
  files = [file for file in RELEASES.rglob("*") if file.is_file()]
  assert sum(file.stat().st_size for file in files) < 6e6


@pytest.mark.parametrize("name", NAMES)
def test_they_are_described(name):
  assert (
    f"| [{name}]({name}/README.md) |" in (RELEASES / "README.md").read_text()
  )
  card = (RELEASES / name / "README.md").read_text()
  assert f"--workdir={name} --mode=sample" in card


def test_the_digits_are_clear():
  """The card says 90 %; of 128 digits the deviation is 3 %."""
  found = restored("digits", 128)
  judge = image_quality.load_reference(found.config).found.judge
  drawn = sample.draw(found)
  shares = [
    recognised_digits.verdict(judge, images).recognised
    for images in (drawn.samples, drawn.generated)
  ]
  assert shares[0] > 0.82 and shares[1] < 0.79  # The card says 66 %.


def _sharpness(images):
  """Returns the root mean square of the Laplacian of the first channel."""
  x = images[..., 0].astype(np.float64)
  inner = x[:, 1:-1, 1:-1]
  around = x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2]
  return np.sqrt(np.square(4 * inner - around).mean())


@pytest.mark.parametrize(
  ("name", "samples", "generator"), [("fashion", 59, 46), ("emoji", 54, 29)]
)
def test_samples_are_sharper_than_the_generator(name, samples, generator):
  """Of 32 images the deviation is 2; Fashion-MNIST's test images have 61."""
  drawn = sample.draw(restored(name, 32))
  assert abs(_sharpness(drawn.samples) - samples) < 7
  assert abs(_sharpness(drawn.generated) - generator) < 6
