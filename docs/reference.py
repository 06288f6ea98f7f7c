"""Writes the pages that are made from the code: API reference and fields.

The pages follow the package by themselves: a new module or a new field needs no
change here.
"""

import ast
import pathlib
import shutil
from typing import Any

from hatebm_jax import config as config_lib

_PACKAGE = pathlib.Path(__file__).parents[1] / "hatebm_jax"

_INDEX = """\
# API reference

The reference is made from the docstrings, a page for each room of the package.

{rows}
```{{toctree}}
:hidden:

fields
{pages}
```
"""

_FIELDS = """\
# Config fields

Set a field with `--config.group.field=value`. The column "resume" says whether
the field may change when a run is resumed. `recorded` means that the new value
holds from that training step on, and that `config_changes.json` in the workdir
says so. `ignored` means that only a new run uses the field. The column "use"
says whether `--mode=sample` and `--mode=evaluate` follow the field.

"""

_MODULE = """\
## {name}

```{{eval-rst}}
.. automodule:: {name}
{options}```

"""


def write(folder: pathlib.Path) -> None:
  """Writes all generated pages.

  Args:
    folder: Folder of the pages. What it held before is deleted.
  """
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  (folder / "fields.md").write_text(_FIELDS + "\n".join(_groups()))
  rooms = _rooms()
  for name, modules in rooms.items():
    text = f"# {name}\n\n" + "".join(
      _module(module, path) for module, path in modules.items()
    )
    (folder / f"{name}.md").write_text(text)
  rows = "| module | content |\n|---|---|\n" + "".join(
    f"| [{module}]({name}.md) | {_first_line(path)} |\n"
    for name, modules in rooms.items()
    for module, path in modules.items()
  )
  index = _INDEX.format(rows=rows, pages="\n".join(rooms))
  (folder / "index.md").write_text(index)


def _rooms() -> dict[str, dict[str, pathlib.Path]]:
  """Returns the modules of each room.

  Returns:
    Name of the room -> {full name of the module: its file}. A room is a folder
    of the package, or a module that stands alone.
  """
  rooms = {}
  for path in sorted(_PACKAGE.rglob("*.py")):
    parts = path.relative_to(_PACKAGE).with_suffix("").parts
    if parts[-1] == "__main__" or parts == ("__init__",):
      continue
    module = ".".join(part for part in parts if part != "__init__")
    rooms.setdefault(parts[0], {})[f"hatebm_jax.{module}"] = path
  return rooms


def _module(name: str, path: pathlib.Path) -> str:
  """Returns the section of a module."""
  # What a package offers under its own name has a section of its own too.
  is_package = path.name == "__init__.py"
  options = "   :ignore-module-all:\n" if is_package else ""
  return _MODULE.format(name=name, options=options) + _offers(path)


def _offers(path: pathlib.Path) -> str:
  """Returns a sentence that lists the names in a module's `__all__`."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Assign) and "__all__" in map(
      ast.unparse, node.targets
    ):
      names = ", ".join(f"`{name}`" for name in ast.literal_eval(node.value))
      return f"This package offers {names}.\n\n"
  return ""


def _first_line(path: pathlib.Path) -> str:
  """Returns the first line of a module's docstring."""
  text = ast.get_docstring(ast.parse(path.read_text())) or ""
  return text.partition("\n")[0].replace("|", "\\|")


def _groups() -> list[str]:
  """Returns the table of the fields of each group."""
  tables = []
  for group, fields in config_lib.GROUPS.items():
    title = f"config.{group}" if group else "config"
    rows = [
      f"| `{name}` | {_value(field.default)} | {_cell(field.rule.expected)} "
      f"| {_cell(field.help)} | {field.on_resume.value} "
      f"| {'yes' if field.in_use else 'no'} |\n"
      for name, field in fields.items()
    ]
    tables.append(
      f"## {title}\n\n{config_lib.GROUP_HELP[group]}\n\n"
      "| field | default | allowed | meaning | resume | use |\n"
      "|---|---|---|---|---|---|\n" + "".join(rows)
    )
  return tables


def _value(value: Any) -> str:
  return f"`{value!r}`"


def _cell(text: str) -> str:
  """Escapes text for a cell of a table."""
  for character in "\\|*_<[":
    text = text.replace(character, f"\\{character}")
  return text
