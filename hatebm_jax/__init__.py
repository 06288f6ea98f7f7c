"""Hat EBM in JAX: energy-based models X = G(Z) + Y on any generator G."""

import os

# TensorFlow (which reads data and writes TensorBoard files) greets on stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
