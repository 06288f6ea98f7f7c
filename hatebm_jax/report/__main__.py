"""Command line: `python -m hatebm_jax.report DIR`."""

import sys

from hatebm_jax import report

if __name__ == "__main__":
  sys.exit(report.main())
