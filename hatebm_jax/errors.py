"""Errors that a user can mend: one message, no traceback."""


class UserError(ValueError):
  """Something that a user can mend; the message says how.

  Every error of this package that is not a programming error derives from it.
  Commands catch this one class.
  """


class ConfigError(UserError):
  """A field of the config has a value that cannot be used."""
