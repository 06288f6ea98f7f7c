"""Command line: `python -m hatebm_jax.aot`."""

from hatebm_jax.aot.program import program

if __name__ == "__main__":
  program.run()
