import pathlib

import inception_weights
import needs
import numpy as np
import pth
import pytest

from hatebm_jax import convert, errors
from hatebm_jax.convert import efficientnet as converter
from hatebm_jax.convert import network, torch_network
from hatebm_jax.metrics import efficientnet

FIXTURE = (
  pathlib.Path(__file__).parents[1] / "fixtures" / "efficientnet_lite0.npz"
)


@needs.efficientnet
@pytest.mark.parametrize(
  "size", [32, *(pytest.param(x, marks=pytest.mark.slow) for x in (224, 300))]
)
def test_features_are_those_of_pytorch(size):
  variables = efficientnet.load(efficientnet.weights())
  images = inception_weights.images(size)
  found = efficientnet.outputs(variables, images)
  with np.load(FIXTURE) as expected:
    for values, name in zip(found, ("features", "logits"), strict=True):
      reference = expected[f"{name}_{size}"]
      assert np.abs(reference).max() > 2
      np.testing.assert_allclose(values, reference, rtol=0, atol=1e-4)


def test_names_are_pytorchs():
  module = converter.EfficientNetLite0()
  shapes = {
    torch_network.name_in_file(
      name, converter.RENAMES
    ): torch_network.shape_in_file(name, shape)
    for name, shape in network.expected_shapes(
      module, converter.INPUT_SHAPE
    ).items()
  }
  assert len(shapes) == 296 - 49  # The file counts batches in 49 norms.
  assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
  assert shapes["_blocks.0._project_conv.weight"] == (16, 32, 1, 1)
  assert shapes["_blocks.8._depthwise_conv.weight"] == (480, 1, 5, 5)
  assert shapes["_blocks.15._bn2.running_var"] == (320,)
  assert shapes["_fc.weight"] == (1000, 1280)


def test_another_network_is_refused(tmp_path):
  tensor = pth.tensor(2, 0, (2,), (1,))
  path = pth.write(
    tmp_path / "x.pth", pth.dictionary(other=tensor), data_0=bytes(8)
  )
  with pytest.raises(convert.ConvertError, match="is missing"):
    convert.from_efficientnet(path)


def test_without_the_weights_the_message_says_what_to_install(monkeypatch):
  monkeypatch.setattr(efficientnet, "_PACKAGE", "no_such_package")
  with pytest.raises(errors.ConfigError, match=r"'\.\[metrics\]'"):
    efficientnet.weights()
