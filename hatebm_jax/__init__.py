"""Hat EBM in JAX: energy-based models X = G(Z) + Y on any generator G."""

import os

# TensorFlow, which only reads data and writes TensorBoard files here, would
# greet on stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__version__ = "0.1.0"
