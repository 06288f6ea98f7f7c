"""Times the parts of a run in each form of the convolutions, and their floors.

A floor is the FLOPs of a part over the machine's rate in matrix products. All
is timed in one process, in turns.
"""

from hatebm_jax.benchmark.timing import measure

__all__ = ["measure"]
