"""Makes digits runs and data that are small enough for a test."""

import importlib
import itertools

import jax
import ml_collections
import numpy as np

from hatebm_jax import data, objectives, sharding


def config(name="digits", **overrides):
  """Returns a digits config with width 8, batch 8 and 3 Langevin steps.

  Args:
    name: Name of the file in configs/.
    **overrides: Overrides, each as `group__field=value`.
  """
  tiny = importlib.import_module(f"hatebm_jax.configs.{name}").get_config()
  settings = {
    "model__width": 8,
    "model__latent_size": 4,
    "train__num_steps": 4,
    "train__batch_size": 8,
    "train__log_every": 1,
    "train__image_every": 2,
    "train__checkpoint_every": 2,
    "langevin__num_steps": 3,
    "langevin__replay_share": 0.0,
    "langevin__replay_from": 0,
    "generator__bank_size": 24,
    "sngan__discriminator_width": 8,
    "sample__num_images": 12,
    "sample__batch_size": 8,
    "sample__weights": "raw",
    "evaluate__num_steps": 4,
    "chains__num_chains": 32,
    **overrides,
  }
  for name, value in settings.items():
    group, field = name.split("__")
    tiny[group][field] = value
  return tiny


def data_config(source, **overrides):
  """Returns the group `data` of a config, for colour images of 8 pixels."""
  fields = dict(
    source=source,
    train_split="",
    test_split="",
    feature="",
    image_size=8,
    channels=3,
    crop="center",
    jpeg_dct="accurate",
    data_dir="",
    cache_dir="",
    cache_gib=1.0,
  )
  return ml_collections.ConfigDict(fields | overrides)


def take(source, num, **kwargs):
  """Returns the first batches of a source, `[num, batch, h, w, channels]`."""
  iterator = data.batches(source, **kwargs)
  taken = list(itertools.islice(iterator, num))
  iterator.close()
  return np.stack(taken)


def prepare_tfds(directory, images, file_format="tfrecord"):
  """Prepares the data set `tiny` from uint8 images `[n, 4, 4, 3]`."""
  import pytest

  pytest.importorskip("tensorflow")  # It writes data sets.
  import tensorflow_datasets as tfds

  image = tfds.features.Image(shape=(4, 4, 3), encoding_format="png")
  tfds.dataset_builders.store_as_tfds_dataset(
    name="tiny",
    version="1.0.0",
    features=tfds.features.FeaturesDict({"image": image}),
    split_datasets={"train": [(i, {"image": x}) for i, x in enumerate(images)]},
    data_dir=directory,
    file_format=file_format,
  )


def with_moved_bank(state):
  """Returns a synthesis state whose bank is as if chains had moved its images.

  A new bank holds the generator's own images. The generator's first gradient
  is then zero up to rounding, and Adam turns rounding into steps of full
  length: what comes of it depends on versions of XLA and on devices.
  """
  images = 0.9 * state.bank.x + 0.05
  return state._replace(bank=state.bank._replace(x=images))


def take_step(settings, num_devices, images):
  """Takes one training step.

  Returns:
    The objective, the states before and after, the metrics and the images.
  """
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  objective = objectives.make(settings, mesh)

  @jax.jit
  def run(images):
    state = objective.init(jax.random.key(0))
    return state, *objective.step(state, images, jax.random.key(1))

  return objective, *run(images)
