"""Makes releases: runs without training state, to give to other people.

A release is a folder: `config.json`, `weights.safetensors`, a model card
`README.md`, the grid `samples.png`, and `golden.json`, by which others see that
they draw the same samples. `hatebm_jax.run.weights` reads the weights.
"""

from hatebm_jax.release.golden import check
from hatebm_jax.release.making import from_files, from_run

__all__ = ["check", "from_files", "from_run"]
