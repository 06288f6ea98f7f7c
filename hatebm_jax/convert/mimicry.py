"""Reads SN-GANs that the PyTorch package torch-mimicry trained.

Its trainer writes `netG.pth` and `netD.pth`. They hold
`{"model_state_dict": ...}` beside the optimizer's state and the step. Files
that users saved in other ways are read too.
"""

from collections.abc import Mapping

import flax.linen as nn

from hatebm_jax.convert import network, torch_network
from hatebm_jax.convert.network import ConvertError, Shape
from hatebm_jax.models.discriminator import Discriminator
from hatebm_jax.models.generator import Generator

_LAYERS = {
  "conv_0": "c1",
  "conv_1": "c2",
  "norm_0": "b1",
  "norm_1": "b2",
  "shortcut": "c_sc",
}
# Numbers of blocks of the generators for 32, 64 and 128 pixels.
_GENERATOR_BLOCKS = (3, 4, 5)
# The generator has the first of these, the discriminator the second.
_ANCHORS = ("l1.weight", "block1.c1.weight_orig")
_ADVICE = "Give netG.pth or netD.pth of torch-mimicry."


def from_mimicry(
  path: network.Path, key: str | None = None
) -> tuple[nn.Module, network.Variables]:
  """Reads a generator or a discriminator; the file tells its widths.

  Nothing in the file is run, and PyTorch is not needed.

  Args:
    path: Path of `netG.pth` or `netD.pth`, or of another .pth with the
      network's `state_dict`. Numbers may have any precision.
    key: Name of the network in the file, for a file that holds several.

  Returns:
    The module and its variables, float32: a `Generator` with `params` and
    `batch_stats`, or a `Discriminator` with `params` and `spectral`. The
    discriminator's kernels are as trained, before spectral norm; u and v are
    the stored ones.

  Raises:
    ConvertError: If the file is missing, incomplete, or of another network.
  """
  tensors = torch_network.state_dict(path, _ANCHORS, _ADVICE, key)
  found = {name: tensor.shape for name, tensor in tensors.items()}
  module, input_shape, renames = _infer(path, found)
  return module, torch_network.read(path, tensors, module, input_shape, renames)


def _infer(
  path: network.Path, found: Mapping[str, Shape]
) -> tuple[nn.Module, Shape, dict[str, str]]:
  """Finds out which network the tensors of a file belong to.

  Returns:
    The module, the shape of an input, and the file's names of its parts.
  """
  parts = {name.split(".")[0] for name in found}
  if "l1" in parts:
    return _infer_generator(path, found)
  if "block1" in parts:
    return _infer_discriminator(path, found)
  raise ConvertError(
    f"{path}: expected the tensors of torch-mimicry's SN-GAN: of its generator "
    "(l1.weight, block2.c1.weight, ...) or of its discriminator "
    f"(block1.c1.weight_orig, ...), found {sorted(parts)[:8]}. {_ADVICE}"
  )


def _infer_generator(path, found):
  blocks = network.blocks(
    path, found, 2, "a generator (32, 64 or 128 pixels)", _GENERATOR_BLOCKS
  )
  shape = lambda name, rank: network.kernel_shape(path, found, name, rank)
  dense_width, latent_size = shape("l1.weight", 2)
  last = len(blocks) + 2
  module = Generator(
    base_width=network.base_width(path, "l1.weight", dense_width),
    widths=tuple(shape(f"{block}.c1.weight", 4)[0] for block in blocks),
    channels=shape(f"c{last}.weight", 4)[0],
    out_factor=1.0,
    norm_epsilon=1e-5,  # PyTorch's default.
  )
  renames = _renames(blocks) | {
    "dense": "l1",
    "norm": f"b{last}",
    "conv": f"c{last}",
  }
  return module, (1, latent_size), renames


def _infer_discriminator(path, found):
  blocks = network.blocks(
    path, found, 1, "a discriminator (32, 64 or 128 pixels)", network.NUM_DOWNS
  )
  kernels = [
    network.kernel_shape(path, found, f"{block}.{conv}.weight_orig", 4)
    for block in blocks
    for conv in ("c1", "c2")
  ]
  module = Discriminator(
    widths=tuple(kernel[0] for kernel in kernels[1::2]),
    num_downs=network.NUM_DOWNS[len(blocks)],
  )
  renames = _renames(blocks) | {
    "head": f"l{len(blocks) + 1}",
    "kernel": "weight_orig",
  }
  images = network.image_shape(module.num_downs, kernels[0][1])
  return module, images, renames


def _renames(blocks: list[str]) -> dict[str, str]:
  """Returns the file's names of the parts that both networks share."""
  numbered = {f"block_{i}": block for i, block in enumerate(blocks)}
  return numbered | _LAYERS | torch_network.LEAVES
