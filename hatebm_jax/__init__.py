"""Hat EBM in JAX: energy-based models X = G(Z) + Y on any generator G."""

__version__ = "0.1.0"
