"""Generators as a config describes them, and trained ones from elsewhere."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from hatebm_jax import convert, errors, models, networks
from hatebm_jax.convert import network
from hatebm_jax.objectives.parts import learner
from hatebm_jax.run import files, weights, workdir

_WITH_GENERATOR = ("autoencoder", "sngan", "synthesis")
# Linen's nesting, and how a network is computed, do not concern the weights.
_FREE_FIELDS = ("parent", "name", "dtype", "conv_form")


def make(
  config: ml_collections.ConfigDict,
) -> tuple[nn.Module, tuple[int, ...]]:
  """Returns the generator of a config and the shape of one latent.

  Raises:
    ConfigError: `config.generator.kind` names no generator, or the network does
      not exist for the config's size or width.
  """
  group, size = config.generator, config.data.image_size
  kind = models.choose(
    "config.generator.kind", group.kind, "make", "latent_shape"
  )
  options = {
    "width": config.model.width if group.width is None else group.width,
    "channels": config.data.channels,
    "out_factor": group.out_factor,
    "norm_epsilon": group.norm_epsilon,
    "dtype": jnp.dtype(config.model.dtype),
  }
  return (
    models.in_form(kind.make(size, **options), config.model.conv_form),
    kind.latent_shape(size, config.model.latent_size),
  )


def without_hat(
  config: ml_collections.ConfigDict, kind: str
) -> networks.Networks:
  """Returns the networks of a run that trains a generator and has no hat.

  Args:
    config: Config of the run.
    kind: Kind of generator that the run trains, `generator` or `decoder`.

  Raises:
    ConfigError: If the config's generator is of another kind.
  """
  if config.generator.kind != kind:
    raise errors.ConfigError(
      f"config.generator.kind={config.generator.kind!r}: expected {kind!r} for "
      f"config.objective={config.objective!r}. Set it with "
      f"--config.generator.kind={kind}."
    )
  size = config.data.image_size
  module, latent_shape = make(config)
  return networks.Networks(
    hat=None,
    generator=module,
    variables=lambda state, weights: (None, variables_of(state, weights)),
    latent_shape=latent_shape,
    image_shape=(size, size, config.data.channels),
  )


def variables_of(state: Any, weights: str) -> dict[str, Any]:
  """Returns the variables of a trained generator.

  Args:
    state: State that has a learner `generator` and `generator_stats`.
    weights: Which weights of the learner, `raw` or `averaged`. There is one set
      of batch-norm statistics.
  """
  return {
    "params": learner.params_of(state.generator, weights),
    "batch_stats": state.generator_stats,
  }


def abstract_variables(
  module: nn.Module, latent_shape: tuple[int, ...]
) -> dict[str, Any]:
  """Returns shapes and dtypes of a generator's variables."""
  z = jax.ShapeDtypeStruct((1, *latent_shape), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), z)


def load(
  config: ml_collections.ConfigDict,
  module: nn.Module,
  latent_shape: tuple[int, ...],
) -> dict[str, Any]:
  """Reads the generator's variables from `config.generator.source`.

  Args:
    config: Config of the run that takes the generator over.
    module: Generator, from `make`.
    latent_shape: Shape of one latent, from `make`.

  Returns:
    The raw weights and the batch-norm statistics, NumPy arrays.

  Raises:
    CheckpointError: If the named run has no checkpoint that fits.
    ReleaseError: If the named release does not fit.
    ConfigError: If nothing is named, or another generator.
    ConvertError: If the named file does not fit.
    WorkdirError: If the named folder holds no run.
  """
  expected = abstract_variables(module, latent_shape)
  source = config.generator.source
  if source:
    path = files.as_path(source)
    if path.is_dir():
      return _from_run(path, module, expected)
    if path.is_file():
      return _from_npz(path, module, expected)
  found = "there is nothing there" if source else "it is empty"
  raise errors.ConfigError(
    f"config.generator.source={source!r}: {found}. Expected the workdir of an "
    "autoencoder or SN-GAN run, a release of one, or an .npz that python -m "
    "hatebm_jax.convert wrote. Make one first (the docstring of the config "
    "says how), then give --config.generator.source=PATH."
  )


def _from_run(path, module, expected):
  """Reads a release, or the newest checkpoint of a run of ours."""
  run = workdir.read_config(path)
  if run.objective not in _WITH_GENERATOR:
    raise errors.ConfigError(
      f"config.generator.source={str(path)!r} is a run of {run.objective!r}, "
      f"expected one that learns a generator: {', '.join(_WITH_GENERATOR)}."
    )
  check_same(_source(path), module, make(run)[0])
  part = weights.restore_part(
    path,
    {
      "generator": {"params": expected["params"]},
      "generator_stats": expected["batch_stats"],
    },
  )
  return {
    "params": part["generator"]["params"],
    "batch_stats": part["generator_stats"],
  }


def _from_npz(path, module, expected):
  """Reads a converted file."""
  found, variables = convert.load_npz(path)
  check_same(_source(path), module, found)
  shapes = lambda tree: {k: v.shape for k, v in network.flatten(tree).items()}
  network.check_shapes(path, shapes(expected), shapes(variables))
  return jax.device_get(variables)


def _source(path: epath.Path) -> str:
  """Returns the start of a message about `config.generator.source`."""
  return f"config.generator.source={str(path)!r}"


def check_same(what: str, module: nn.Module, found: nn.Module) -> None:
  """Checks that two generators are the same network.

  Args:
    what: Start of the message: which field or file names the second one.
    module: Generator of the config, from `make`.
    found: Generator that the field or file describes.

  Raises:
    ConfigError: If they differ.
  """

  def attributes(module):
    fields = {
      f.name: getattr(module, f.name) for f in dataclasses.fields(module)
    }
    return {"network": type(module).__name__} | {
      name: value for name, value in fields.items() if name not in _FREE_FIELDS
    }

  expected, found = attributes(module), attributes(found)
  different = [k for k, v in expected.items() if found.get(k) != v]
  if different:
    raise errors.ConfigError(
      f"{what} does not fit: expected "
      + ", ".join(f"{k} {expected[k]}" for k in different)
      + "; found "
      + ", ".join(f"{k} {found.get(k)}" for k in different)
      + ". Set config.generator (kind, width, out_factor, norm_epsilon) and "
      "config.data (image_size, channels) as they were when it was trained."
    )
