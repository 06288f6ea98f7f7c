"""Errors that a user's settings cause: shown as one message, no traceback."""


class ConfigError(ValueError):
  """A field of the config has a value that cannot be used."""
