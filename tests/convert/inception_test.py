import pathlib

import inception_weights
import numpy as np
import pth
import pytest

from hatebm_jax import convert, errors
from hatebm_jax.convert import inception as converter
from hatebm_jax.convert import network, torch_network
from hatebm_jax.metrics import inception
from hatebm_jax.models.inception import Inception

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "inception.npz"


def _shapes():
  """Shapes by PyTorch's names."""
  shapes = network.expected_shapes(Inception(), converter.INPUT_SHAPE)
  return {
    torch_network.name_in_file(
      name, torch_network.LEAVES
    ): torch_network.shape_in_file(name, shape)
    for name, shape in shapes.items()
  }


def _strides(shape):
  return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def _write(path, write, shapes):
  """Writes the random network as the usual tools' .pth."""
  tensors, storages = {}, {}
  for i, (name, shape) in enumerate(shapes.items()):
    size = int(np.prod(shape))
    key = str(i)
    tensors[name] = pth.tensor(size, 0, shape, _strides(shape), key=key)
    key = key if write is pth.write_old else f"data_{key}"
    storages[key] = inception_weights.values(name, shape).tobytes()
  return write(path, pth.dictionary(**tensors), **storages)


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(tmp_path):
  new = _write(tmp_path / "new.pth", pth.write, _shapes())
  old = _write(tmp_path / "old.pth", pth.write_old, _shapes())
  convert.save_npz(tmp_path / "ours.npz", *convert.from_inception(old))
  variables = [inception.load(path) for path in (new, tmp_path / "ours.npz")]
  with np.load(FIXTURE) as expected:
    for i, size in enumerate((32, 299, 400)):
      images = inception_weights.images(size)
      found = inception.features_and_logits(variables[i % 2], images)
      for values, name in zip(found, ("features", "logits"), strict=True):
        reference = expected[f"{name}_{size}"]
        error = np.abs(values - reference).max() / np.abs(reference).max()
        assert error < 1e-5, (name, size)


def test_names_are_pytorchs():
  shapes = _shapes()
  assert len(shapes) == 94 * 5 + 2
  assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
  assert shapes["Mixed_6c.branch7x7dbl_3.conv.weight"] == (160, 160, 1, 7)
  assert shapes["Mixed_7c.branch3x3_2b.bn.running_var"] == (384,)
  assert shapes["fc.weight"] == (1008, 2048)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda shapes: shapes.pop("fc.bias"), "fc.bias .* is missing"),
    (
      lambda shapes: shapes.update({"fc.bias": (1000,)}),
      r"fc.bias has the shape \(1000,\), expected \(1008,\)",
    ),
    (lambda shapes: shapes.update({"aux.bias": (3,)}), "has no aux.bias"),
  ],
)
def test_other_networks_are_refused(tmp_path, change, message):
  shapes = _shapes()
  change(shapes)
  tensors = {
    name: pth.tensor(int(np.prod(shape)), 0, shape, _strides(shape))
    for name, shape in shapes.items()
  }
  path = pth.write(tmp_path / "x.pth", pth.dictionary(**tensors))
  with pytest.raises(convert.ConvertError, match=message):
    convert.from_inception(path)


def test_other_content_is_refused(tmp_path):
  path = pth.write(tmp_path / "x.pth", pth.dictionary(step=pth.number(3)))
  with pytest.raises(
    convert.ConvertError, match=r"found step of the type int\. Give"
  ):
    convert.from_inception(path)


def test_without_weights_the_message_says_where_they_are(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"pt_inception-2015-12-05.*npz"):
    inception.load(tmp_path / "none.pth")


@pytest.mark.parametrize(
  "images", [np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 1), np.uint8)]
)
def test_other_images_are_refused(images):
  with pytest.raises(ValueError, match="expected uint8"):
    inception.features({}, images)


def test_keys_that_are_no_names(tmp_path):
  content = b"}" + pth.number(1) + pth.tensor(1, 0, (1,), (1,)) + b"s"
  path = pth.write(tmp_path / "x.pth", content, data_0=bytes(4))
  with pytest.raises(
    convert.ConvertError, match=r"is missing, and 471 arrays more"
  ):
    convert.from_inception(path)
