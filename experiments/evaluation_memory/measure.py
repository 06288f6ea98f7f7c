"""Measures the host memory of measuring images of 128 pixels.

python -m experiments.evaluation_memory.measure NUM_IMAGES NUM_FEATURES
"""

import argparse
import json
import resource
import time

import jax
import numpy as np
from jax import numpy as jnp

from hatebm_jax import compile as compile_lib
from hatebm_jax import objectives, sample, sharding
from hatebm_jax.configs import imagenet128
from hatebm_jax.evaluation import gathering, image_quality
from hatebm_jax.metrics import feature_spaces, metric
from hatebm_jax.restore import Restored

_BATCH = 50


def _settings(num_images: int):
  """Returns ImageNet's config with tiny networks and short chains."""
  config = imagenet128.get_config()
  config.unlock()
  config.model.width, config.model.latent_size = 16, 8
  config.train.batch_size = config.generator.bank_size = 8
  config.evaluate.num_steps = 1
  config.sample.num_images, config.sample.batch_size = num_images, _BATCH
  return config


def _untrained(config) -> Restored:
  """Returns a run with random weights."""
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  abstract = compile_lib.abstract_state(config, objective, mesh)
  state = compile_lib.init_state(config, objective, abstract, ())
  model = objective.networks
  return Restored(config, 0, model, model.variables(state, "raw"), None, mesh)


def _space(dim: int) -> feature_spaces.Space:
  """Returns a cheap network with as many features as the one it stands for."""
  weights = jax.random.normal(jax.random.key(0), (16 * 16 * 3, dim)) / 28
  classes = jax.random.normal(jax.random.key(1), (dim, 1008)) / dim**0.5

  @jax.jit
  def outputs(images):
    x = images.astype(jnp.float32) / 255
    x = x.reshape(len(x), 16, 8, 16, 8, 3).mean((2, 4)).reshape(len(x), -1)
    features = jnp.tanh(x @ weights)
    return features, features @ classes

  return feature_spaces.Space("FID", dim, outputs, None, _BATCH)


def _reference(space: feature_spaces.Space, num_images: int):
  """Measures noise that is blurred, as reference images."""
  rng = np.random.default_rng(0)
  gathered = gathering.Gathered(space, num_images)
  for _ in range(num_images // _BATCH):
    coarse = rng.integers(0, 256, (_BATCH, 16, 16, 3), np.uint8)
    gathered.add(coarse.repeat(8, 1).repeat(8, 2))
  found = gathered.sample()
  reference = metric.Reference(space.name, found.moments, found.features)
  return image_quality.Reference(space, reference, {})


def main() -> None:
  """Measures once, and prints the peak of the process as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("num_images", type=int)
  parser.add_argument("num_features", type=int)
  args = parser.parse_args()
  start = time.perf_counter()
  config = _settings(args.num_images)
  restored, space = _untrained(config), _space(args.num_features)
  reference = _reference(space, args.num_images)

  def draw(repeat):
    for batch in sample.batches(restored, repeat):
      yield {"hat": batch.samples, "generator": batch.generated}

  image_quality.measure_repeats(config, draw, lambda repeat: reference)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  seconds = round(time.perf_counter() - start)
  print(json.dumps(vars(args) | {"peak_mib": round(peak), "seconds": seconds}))


if __name__ == "__main__":
  main()
