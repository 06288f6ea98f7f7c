"""Makes configs/ of a checkout importable as hatebm_jax.configs.

An installed package has the folder hatebm_jax/configs itself (setup.cfg), which
Python prefers over this file.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[1] / "configs")]
