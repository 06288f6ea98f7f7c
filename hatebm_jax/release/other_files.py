"""Reads other people's files into the weights that a config describes."""

import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import ml_collections

from hatebm_jax import compile as compile_lib
from hatebm_jax import convert, errors, objectives, sharding
from hatebm_jax.convert import network
from hatebm_jax.objectives.parts import generators, start
from hatebm_jax.run import weights

# The networks that a run can have, and their classes.
_CLASSES = {
  "hat": ("Hat",),
  "generator": ("Generator", "Decoder"),
  "encoder": ("Encoder",),
  "discriminator": ("Discriminator",),
}
NETWORKS = tuple(_CLASSES)
# Nothing but DDLS needs it.
_OPTIONAL = ("discriminator",)
# These parts of a state belong to the network of another name.
_PARTS = {"generator_stats": "generator", "spectral": "discriminator"}


def read(
  config: ml_collections.ConfigDict, paths: Mapping[str, network.Path]
) -> dict[str, Any]:
  """Reads the networks of a config.

  Args:
    config: Config of the experiment that the files come from.
    paths: Path of the file of each network, by `hat`, `generator`, `encoder`
      or `discriminator`. A file is a TensorFlow 2 checkpoint of the reference
      (its prefix), a .pth of torch-mimicry, or an .npz of
      `python -m hatebm_jax.convert`.

  Returns:
    The raw weights, named as in the state of a run. There are no averages.

  Raises:
    ConfigError: If a network is missing, the config has no such network, or the
      generator of the file is another one than that of the config.
    ConvertError: If a file cannot be read.
    ReleaseError: If an array does not fit the config.
  """
  mesh = sharding.make_mesh(jax.devices()[:1])
  objective = objectives.make(config, mesh)
  state = compile_lib.abstract_state(config, objective, mesh)
  _check_given(config, state, paths)
  expected = start.weights_of(state)
  found = {}
  for name, path in paths.items():
    module, variables = _read(path, config)
    _check_class(name, path, module)
    of_file = _as_in_state(name, variables, expected)
    _check_shapes(path, name, expected, of_file)
    if name == "generator":
      what = f"--generator={os.fspath(path)}"
      generators.check_same(what, objective.networks.generator, module)
    found |= of_file
  return found


def _check_given(config, state, paths) -> None:
  """Raises a ConfigError unless each network of the state has a file."""
  names = [name for name in NETWORKS if name in state._fields]
  for name in names:
    if name not in paths and name not in _OPTIONAL:
      raise errors.ConfigError(
        f"--{name} is missing: expected a file for the {name} of an experiment "
        f"with the objective {config.objective!r}. Give --{name}=FILE."
      )
  for name in paths:
    if name not in names:
      raise errors.ConfigError(
        f"--{name} is given, and an experiment with the objective "
        f"{config.objective!r} has no {name}: expected "
        f"{' and '.join(f'--{x}' for x in names)}. Leave it out, or name "
        "another --config."
      )


def _read(
  path: network.Path, config: ml_collections.ConfigDict
) -> tuple[nn.Module, network.Variables]:
  """Reads a file of one network."""
  extension = os.path.splitext(os.fspath(path))[1]
  if extension == ".npz":
    return convert.load_npz(path)
  if extension in (".pth", ".pt"):
    return convert.from_mimicry(path)
  return convert.from_tf2(path, out_factor=config.generator.out_factor)


def _check_class(name: str, path: network.Path, module: nn.Module) -> None:
  if type(module).__name__ not in _CLASSES[name]:
    raise errors.ConfigError(
      f"--{name}={os.fspath(path)}: expected the file of a "
      f"{' or '.join(_CLASSES[name]).lower()}, found a "
      f"{type(module).__name__.lower()}. Name another file."
    )


def _as_in_state(
  name: str, variables: network.Variables, expected: dict[str, Any]
) -> dict[str, Any]:
  """Returns variables of a network under the names of a state's parts."""
  if "average" not in expected[name]:  # The generator of a joint run is frozen.
    return {name: variables}
  parts = {name: {"params": variables["params"]}}
  if name == "generator":
    parts["generator_stats"] = variables["batch_stats"]
  if name == "discriminator":
    parts["spectral"] = variables["spectral"]
  return parts


def _shapes(tree: Any, name: str) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a network's raw weights by their names."""
  found = {}
  for keys, leaf in jax.tree.leaves_with_path(tree):
    key = weights.name(keys)
    part, _, rest = key.partition("/")
    if _PARTS.get(part, part) == name and not rest.startswith("average/"):
      found[key] = leaf.shape
  return found


def _check_shapes(path, name, expected, found) -> None:
  """Raises a ReleaseError for the first array that is not as expected."""
  expected, found = _shapes(expected, name), _shapes(found, name)
  for key in [*expected, *(key for key in found if key not in expected)]:
    if expected.get(key) != found.get(key):
      raise weights.ReleaseError(
        f"--{name}={os.fspath(path)} does not fit the config: {key}: expected "
        f"the shape {expected.get(key, '(there is none)')}, found "
        f"{found.get(key, '(there is none)')}. Set config.model (width, "
        "latent_size), config.generator (kind, width) and config.data "
        "(image_size, channels) as they were when it was trained."
      )
