"""Turns what docstrings borrow from Markdown into reStructuredText.

The docstrings write code in single backticks, blocks of code in fences, and
lists without an empty line before them. Sphinx expects reStructuredText, where
the characters of ||y||, *args and x_ are markup.
"""

import re

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
_CODE = re.compile(r"(`[^`]*`)")


def to_rst(lines: list[str]) -> list[str]:
  """Returns the lines of a docstring as reStructuredText.

  Args:
    lines: Lines of the docstring.
  """
  # Every fourth part, from the first, is text. The other three are fences.
  parts = _FENCE.split("\n".join(lines))
  text = ""
  for index in range(0, len(parts), 4):
    text += _text(parts[index])
    if index + 1 < len(parts):
      text += _block(*parts[index + 1 : index + 4])
  return text.split("\n")


def _block(indent: str, language: str, code: str) -> str:
  """Returns a block of code."""
  code = re.sub(r"^(?=.)", "   ", code, flags=re.M)
  return f"\n{indent}.. code-block:: {language or 'text'}\n\n{code}"


def _text(text: str) -> str:
  """Escapes text and sets empty lines around its lists."""
  parts = _CODE.split(text)
  parts[::2] = [re.sub(r"[|*]|_\b", r"\\\g<0>", part) for part in parts[::2]]
  # Code must end before a letter follows it, as in `State`s.
  parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
  lines, item = [], None
  for line in "".join(parts).split("\n"):
    indent = len(line) - len(line.lstrip())
    if re.match(r" *- ", line):
      if item is None and lines and lines[-1]:
        lines.append("")
      item = indent
    elif item is not None and line and indent <= item:
      lines.append("")
      item = None
    lines.append(line)
  return "\n".join(lines)
