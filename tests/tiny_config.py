"""Offers the tiny run of tests/tiny.py as a config file for real processes."""

import tiny


def get_config():
  """Returns the locked configuration."""
  return tiny.config()
