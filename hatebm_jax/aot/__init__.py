"""Compiles a training step for a TPU slice without a TPU."""
