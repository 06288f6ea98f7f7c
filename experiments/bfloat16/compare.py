"""Measures what bfloat16 changes in a trained digits run.

python experiments/bfloat16/compare.py WORKDIR OUT.json
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from hatebm_jax import chains, data, energy, evaluation, pixels, sample
from hatebm_jax.configs import digits
from hatebm_jax.objectives import synthesis

_DTYPES = ("float32", "bfloat16")
_NUM_IMAGES = 500


def _networks(config, dtype):
  config = config.copy_and_resolve_references()
  config.unlock()
  config.model.dtype = dtype
  return synthesis.make_networks(config)


def _energies_and_gradients(restored, images):
  """Returns energies `[n]` and image gradients `[n, h, w, c]` by dtype."""
  hat_variables, _ = restored.variables
  results = {}
  for dtype in _DTYPES:
    hat = _networks(restored.config, dtype).hat
    hat_fn = lambda x, hat=hat: hat.apply(hat_variables, x)
    call = jax.jit(lambda x, hat_fn=hat_fn: energy.image_gradient(hat_fn, x))
    results[dtype] = jax.device_get(call(images))
  return results


def _errors(restored, images):
  """Measures how far bfloat16 energies and gradients are from float32."""
  results = _energies_and_gradients(restored, images)
  (h32, g32), (h16, g16) = (results[dtype] for dtype in _DTYPES)
  flat32, flat16 = (np.float64(g).reshape(len(g), -1) for g in (g32, g16))
  norm32, norm16 = (np.linalg.norm(g, axis=1) for g in (flat32, flat16))
  relative = np.linalg.norm(flat16 - flat32, axis=1) / norm32
  cosine = (flat16 * flat32).sum(1) / (norm16 * norm32)
  return {
    "energy_mean": float(h32.mean()),
    "energy_std": float(h32.std()),
    "energy_error_rms": float(np.sqrt(np.square(h16 - h32).mean())),
    "gradient_relative_error_median": float(np.median(relative)),
    "gradient_cosine_median": float(np.median(cosine)),
  }


def _samples(restored, dtype):
  """Draws with a dtype and returns the images and what the judge says."""
  changed = restored._replace(networks=_networks(restored.config, dtype))
  start = time.perf_counter()
  drawn = sample.draw(changed)
  seconds = time.perf_counter() - start
  sets = evaluation.measure_sets(
    restored.config, {"hat": [drawn.samples], "generator": [drawn.generated]}
  )["sets"]
  return drawn, {
    "seconds": seconds,
    "recognised": sets["hat"]["recognised"]["mean"],
    "rarest": sets["hat"]["rarest"]["mean"],
    "generator_recognised": sets["generator"]["recognised"]["mean"],
  }


def main() -> None:
  """Compares both dtypes on one run and prints the numbers as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("workdir", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  config = digits.get_config()
  config.sample.num_images = _NUM_IMAGES
  restored = sample.restore(config, args.workdir.absolute())
  by_dtype = {dtype: _samples(restored, dtype) for dtype in _DTYPES}
  held_out = data.load_all(data.open_source(restored.config.data, "test"))
  images = {
    "held-out digits": held_out,
    "samples": by_dtype["float32"][0].samples,
  }
  pair = [np.float64(by_dtype[dtype][0].samples) for dtype in _DTYPES]
  result = {
    "step": restored.step,
    "langevin": chains.record(chains.evaluation_plan(restored.config).settings),
    "errors": {
      name: _errors(restored, jnp.asarray(pixels.to_float(x)))
      for name, x in images.items()
    },
    "samples": {dtype: figures for dtype, (_, figures) in by_dtype.items()},
    "sample_rms_difference_of_255": float(
      np.sqrt(np.square(pair[1] - pair[0]).mean())
    ),
  }
  text = json.dumps(result, indent=2)
  args.out.write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  main()
