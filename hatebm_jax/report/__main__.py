"""Command line: `python -m hatebm_jax.report DIR`."""

import argparse
import sys

from hatebm_jax import errors, report


def main(argv: list[str] | None = None) -> int:
  """Writes the page and returns the exit status.

  Args:
    argv: Arguments of the command; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.report",
    description="Writes DIR/report.html, one page about a run.",
  )
  parser.add_argument("dir", help="Workdir of the run.")
  path = parser.parse_args(argv).dir
  try:
    file = report.write(path)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"{file}: {file.stat().length / 2**20:.1f} MiB")
  return 0


if __name__ == "__main__":
  sys.exit(main())
