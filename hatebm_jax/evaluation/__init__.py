"""Measures a trained run, or images of another tool.

`check` says before a run is trained or drawn from whether it can be evaluated.
`evaluate` computes and returns all figures and pictures. `write` prints a table
and writes evaluation.json and the pictures into the workdir; `save` only
writes. `measure_checkpoints`, `write_curve` and `save_curve` do the same for
the distances of all checkpoints of a run, and `read_curve` reads them.
"""

from hatebm_jax.evaluation.checkpoint_curve import measure_checkpoints
from hatebm_jax.evaluation.checks import check
from hatebm_jax.evaluation.compute import Result, evaluate, evaluate_file
from hatebm_jax.evaluation.console import table
from hatebm_jax.evaluation.image_quality import (
  Reference,
  has_network,
  load_reference,
  measure_sets,
)
from hatebm_jax.evaluation.writing import (
  CURVE_FILE,
  FILE,
  REFERENCE_FILE,
  read_curve,
  save,
  save_curve,
  write,
  write_curve,
)

__all__ = [
  "CURVE_FILE",
  "FILE",
  "REFERENCE_FILE",
  "Reference",
  "Result",
  "check",
  "evaluate",
  "evaluate_file",
  "has_network",
  "load_reference",
  "measure_checkpoints",
  "measure_sets",
  "read_curve",
  "save",
  "save_curve",
  "table",
  "write",
  "write_curve",
]
