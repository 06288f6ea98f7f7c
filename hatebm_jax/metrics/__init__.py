"""Measures of images, chains and scores.

A metric of sets of images is one module here. It declares its figures in a
tuple `FIGURES` and computes them in a function `figures(sample, reference)`;
see `hatebm_jax.metrics.figures`. The console, evaluation.json and the report
find it by walking this package.
"""
