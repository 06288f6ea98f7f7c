"""Reads weights of the TensorFlow 2 reference implementation of Hat EBM.

Its `save_weights` writes a checkpoint: `NAME.index`, a table of variables, and
`NAME.data-00000-of-00001`, their values. Kernels have Flax's layout; only the
names differ. TensorFlow is not needed.
"""

import math
import os
import re
from collections.abc import Mapping

import flax.linen as nn

from hatebm_jax.convert import network, tf_file
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.models.decoder import Decoder
from hatebm_jax.models.encoder import Encoder
from hatebm_jax.models.generator import Generator
from hatebm_jax.models.hat import Hat

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# Numbers of blocks of the generators for 32, 64 and 128 pixels.
_GENERATOR_BLOCKS = (3, 4, 5)
_AUTOENCODER_BLOCKS = (4,)


def from_tf2(
  path: network.Path, out_factor: float | None = None
) -> tuple[nn.Module, network.Variables]:
  """Reads a network. The file tells which one it is and its widths.

  Args:
    path: Prefix of the checkpoint, such as `ebm.ckpt`, or one of its files.
    out_factor: Scale of a generator's or decoder's images, which are
      `out_factor * tanh(...)`. The file does not tell it, so a generator or a
      decoder needs it. In the published experiments it is 2 for synthesis and
      for the retrofit, and 1 for refinement. Other networks have none.

  Returns:
    The module and its variables, float32: a `Hat` or an autoencoder's `Encoder`
    with `params`, or a `Generator` or a `Decoder` with `params` and
    `batch_stats`.

  Raises:
    ConvertError: If the file is missing, incomplete, or of another network, or
      if it holds a generator or a decoder and `out_factor` is None.
  """
  prefix = _prefix(path)
  variables = _open(prefix)
  found = {name: variable.shape for name, variable in variables.items()}
  module, input_shape, renames = _infer(prefix, found, out_factor)
  expected = network.expected_shapes(module, input_shape)
  names = {name: _tf_name(name, renames) for name in expected}
  network.check_shapes(
    prefix, {names[name]: shape for name, shape in expected.items()}, found
  )
  arrays = {
    name: tf_file.read(names[name], variables[names[name]]) for name in names
  }
  return module, network.unflatten(arrays)


def _prefix(path: network.Path) -> str:
  """Returns the prefix of a checkpoint, given it or the path of one file."""
  prefix = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", os.fspath(path))
  if not os.path.isfile(prefix + ".index"):
    raise ConvertError(
      f"{path}: expected the prefix of a TensorFlow 2 checkpoint, such as "
      f"ebm.ckpt; found no file {prefix}.index. Give the path without .index."
    )
  return prefix


def _open(prefix: str) -> dict[str, tf_file.Variable]:
  """Reads a checkpoint's table and checks it against the size of its data."""
  found = {}
  for key, variable in tf_file.table(prefix).items():
    if key.endswith(_SUFFIX):
      name = key.removesuffix(_SUFFIX)
      if variable.dtype != "float32":
        raise ConvertError(
          f"{prefix}: {name} has the type {variable.dtype}, expected float32. "
          "Save the network in float32."
        )
      found[name] = variable
  needed = 4 * sum(math.prod(variable.shape) for variable in found.values())
  files = {variable.file for variable in found.values()}
  sizes = [os.path.getsize(file) for file in files if os.path.isfile(file)]
  if sum(sizes) < needed:
    raise ConvertError(
      f"{prefix}: expected at least {needed} bytes in its .data files, found "
      f"{sum(sizes)} in {len(sizes)}. Copy the whole checkpoint."
    )
  return found


def _infer(
  prefix: str, found: Mapping[str, Shape], out_factor: float | None
) -> tuple[nn.Module, Shape, dict[str, str]]:
  """Finds out which network the variables of a file belong to.

  Returns:
    The module, the shape of an input, and the file's names of its parts.
  """
  parts = {name.split("/")[0] for name in found}
  if "conv2latent" in parts:
    return _infer_encoder(prefix, found)
  if "block1" in parts:
    return _infer_decoder(prefix, found, out_factor)
  if "lin_1" in parts:
    return _infer_generator(prefix, found, out_factor)
  if "conv_1" in parts:
    return _infer_hat(prefix, found)
  raise ConvertError(
    f"{prefix}: expected the variables of a hat (conv_1/..., block2/...), a "
    "generator (lin_1/..., block2/...), a decoder or an encoder (block1/...), "
    f"found {sorted(parts)[:8]}. Give the reference's ebm.ckpt, gen.ckpt or "
    "inf.ckpt."
  )


def _infer_hat(prefix, found):
  blocks = network.blocks(
    prefix,
    found,
    2,
    "a hat (32, 64 or 128 pixels)",
    network.NUM_DOWNS,
    stem=["conv_1"],
  )
  channels, widths = _widths(prefix, found, blocks)
  module = Hat(widths=widths, num_downs=network.NUM_DOWNS[len(blocks)])
  renames = _renames(blocks) | {"head": f"lin_{len(blocks) + 1}"}
  return module, network.image_shape(module.num_downs, channels), renames


def _infer_generator(prefix, found, out_factor):
  blocks = network.blocks(
    prefix, found, 2, "a generator (32, 64 or 128 pixels)", _GENERATOR_BLOCKS
  )
  latent_size, dense_width = network.kernel_shape(
    prefix, found, "lin_1/kernel", 2
  )
  last = len(blocks) + 2
  module = Generator(
    base_width=network.base_width(prefix, "lin_1/kernel", dense_width),
    widths=_widths(prefix, found, blocks)[1],
    channels=network.kernel_shape(prefix, found, f"conv_{last}/kernel", 4)[-1],
    out_factor=_given(prefix, "generator", out_factor),
  )
  renames = _renames(blocks) | {
    "dense": "lin_1",
    "norm": f"bn_{last}",
    "conv": f"conv_{last}",
  }
  return module, (1, latent_size), renames


def _infer_decoder(prefix, found, out_factor):
  blocks = network.blocks(
    prefix, found, 1, "a decoder or an encoder", _AUTOENCODER_BLOCKS
  )
  channels, widths = _widths(prefix, found, blocks)
  module = Decoder(
    widths=widths,
    channels=network.kernel_shape(prefix, found, "conv_5/kernel", 4)[-1],
    out_factor=_given(prefix, "decoder", out_factor),
  )
  renames = _renames(blocks) | {"norm": "bn_5", "conv": "conv_5"}
  return module, network.image_shape(1, channels), renames


def _infer_encoder(prefix, found):
  blocks = network.blocks(
    prefix, found, 1, "a decoder or an encoder", _AUTOENCODER_BLOCKS
  )
  channels, widths = _widths(prefix, found, blocks)
  kernel = network.kernel_shape(prefix, found, "conv2latent/kernel", 4)
  module = Encoder(widths=widths, latent_channels=kernel[-1])
  renames = _renames(blocks) | {"conv": "conv2latent"}
  return module, network.image_shape(1, channels), renames


def _given(prefix: str, network_name: str, out_factor: float | None) -> float:
  """Returns the `out_factor` of a network that needs one."""
  if out_factor is None:
    raise ConvertError(
      f"{prefix} holds a {network_name}. Its images are out_factor * "
      "tanh(...), and the file does not tell out_factor: expected it beside "
      "the file, found none. The published experiments have 2 for synthesis "
      "(CIFAR-10, CelebA, ImageNet) and for the retrofit (CIFAR-10), and 1 for "
      "refinement (CIFAR-10, CelebA). Give --out_factor=2 or --out_factor=1, "
      "or the experiment's config: --config=NAME."
    )
  return float(out_factor)


def _widths(prefix, found, blocks: list[str]) -> tuple[int, tuple[int, ...]]:
  """Returns the channels that the first block takes and that each makes."""
  kernels = [
    network.kernel_shape(prefix, found, f"{block}/conv_1/kernel", 4)
    for block in blocks
  ]
  return kernels[0][2], tuple(kernel[-1] for kernel in kernels)


def _renames(blocks: list[str]) -> dict[str, str]:
  """Returns the file's names of the parts that the networks share."""
  return {f"block_{i}": block for i, block in enumerate(blocks)} | {
    "conv_0": "conv_1",
    "conv_1": "conv_2",
    "norm_0": "bn_1",
    "norm_1": "bn_2",
    "shortcut": "sc",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
  }


def _tf_name(name: str, renames: Mapping[str, str]) -> str:
  """Returns the file's name of a flat name such as `params/block_1/...`."""
  _, *parts, leaf = name.split("/")
  # Flax has one name for the bias of a norm and of a layer.
  if leaf == "bias" and parts[-1].startswith("norm"):
    leaf = "beta"
  return "/".join(renames.get(part, part) for part in (*parts, leaf))
