"""Configuration of the documentation site.

Build it in the root of the checkout:
  sphinx-build -W --keep-going -c docs . docs/_build

The root is the source folder, so that links between the pages in docs/, the
README and the studies in experiments/ work both here and on code hosts.
"""

import pathlib
import sys

_HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

import docstrings  # noqa: E402
import reference  # noqa: E402

import hatebm_jax  # noqa: E402

project = "hatebm_jax"
author = "the contributors of hatebm_jax"
copyright = "the contributors of hatebm_jax"
version = release = hatebm_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "experiments/**.md"]
exclude_patterns = ["docs/_build", "**/.*"]
# Errors in different modules may have the same name, such as FileError.
suppress_warnings = ["ref.python"]
html_theme = "furo"
html_title = "hatebm_jax"
html_copy_source = False
smartquotes = False  # A flag keeps its two hyphens.

# Headings get the anchors that code hosts give them.
myst_heading_anchors = 3

# The docstrings write code in single backticks, as Markdown does.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_preserve_defaults = True


def _convert(app, what, name, obj, options, lines) -> None:
  """Changes the lines of a docstring in place."""
  lines[:] = docstrings.to_rst(lines)


def _skip(app, what, name, obj, skip, options) -> bool | None:
  """Leaves out the fields of a NamedTuple: its docstring describes them."""
  doc = getattr(obj, "__doc__", None) or ""
  return True if doc.startswith("Alias for field number") else None


def setup(app) -> None:
  """Writes the generated pages before Sphinx looks for its sources."""
  reference.write(_HERE / "reference")
  # The priority is higher (the number lower) than that of napoleon.
  app.connect("autodoc-process-docstring", _convert, priority=100)
  app.connect("autodoc-skip-member", _skip)
