"""Measures a trained run, or images of another tool.

`evaluate` computes and returns all figures and pictures. `write` prints a table
and writes evaluation.json and the pictures into the workdir.
"""

from hatebm_jax.evaluation.compute import Result, evaluate, evaluate_file
from hatebm_jax.evaluation.console import table
from hatebm_jax.evaluation.image_quality import (
  Reference,
  has_network,
  load_reference,
  measure_sets,
)
from hatebm_jax.evaluation.writing import FILE, REFERENCE_FILE, write

__all__ = [
  "FILE",
  "REFERENCE_FILE",
  "Reference",
  "Result",
  "evaluate",
  "evaluate_file",
  "has_network",
  "load_reference",
  "measure_sets",
  "table",
  "write",
]
