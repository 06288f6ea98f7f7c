"""Makes HTML that stands alone, without scripts or files from elsewhere.

The functions take text and return HTML. All text that they are given is
escaped.
"""

import base64
import html
import io
import re
import string
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etils import epath
from PIL import Image

from hatebm_jax.run import files

_PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$heading</h1>
$introduction
<nav aria-label="Sections">$links</nav>
</header>
<main>
$sections
</main>
</body>
</html>
""")

WIDTH = 1_100  # Pixels; this is about the width of the page.
# Pictures of more pixels (200 MB) are left out. A PNG of a few kB could claim
# to hold more.
_MAX_PIXELS = 2**26
# Pillow raises these if a PNG is broken, or larger than Pillow's own bound.
_PNG_ERRORS = (
  Image.DecompressionBombError,
  OSError,
  SyntaxError,
  ValueError,
  struct.error,
)

_STYLE = """\
:root { color-scheme: light dark; --ink: #1d2126; --soft: #59626d;
  --paper: #ffffff; --band: #f3f5f7; --rule: #d5dade; --accent: #1f62a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #a0a9b3; --paper: #101316;
    --band: #1a1f24; --rule: #363e46; --accent: #7db4ee; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 70rem;
  background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; }
h2 { margin: 2.75rem 0 .75rem; padding-top: .75rem; font-size: 1.3rem;
  border-top: 1px solid var(--rule); }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; }
p { margin: .6rem 0; max-width: 46rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin-top: .75rem; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace;
  background: var(--band); padding: .1em .3em; border-radius: .25em;
  overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
tbody th[scope="rowgroup"] { padding-top: .9rem; font-weight: 600; }
.figures td { white-space: nowrap; }
@media (min-width: 45rem) { .figures th { white-space: nowrap; } }
summary { cursor: pointer; color: var(--accent); }
.grid { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.grid.narrow {
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 16rem), 1fr)); }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .35rem; color: var(--soft); font-size: .9rem; }
section > figure { margin: 1.25rem 0; }
section > figure figcaption { max-width: 46rem; }
dl { display: grid; gap: .15rem 1.5rem; font-size: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
dl div { display: flex; gap: .6rem; border-bottom: 1px solid var(--rule); }
dt { color: var(--soft); flex: none; max-width: 60%; }
dd { margin: 0 0 0 auto; text-align: right; overflow-wrap: anywhere; }
"""


class Picture(NamedTuple):
  """A picture as text.

  Attributes:
    uri: Content of the picture as a `data:` URI.
    size: Width and height in pixels; None stands for the picture's own size.
    shrunk: Whether the picture is smaller than its file.
  """

  uri: str
  size: tuple[int, int] | None = None
  shrunk: bool = False


def _data_uri(kind: str, content: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def svg(text: str) -> Picture:
  """Returns an SVG document as a picture."""
  return Picture(_data_uri("image/svg+xml", text.encode()))


def png_files(folder: epath.Path) -> list[epath.Path]:
  """Returns the PNG files in a folder by name; none if there is no folder."""
  return [file for file in files.entries(folder) if file.suffix == ".png"]


def png(file: epath.Path, max_width: int) -> Picture | None:
  """Reads a PNG.

  Args:
    file: Path of the picture.
    max_width: Largest width in pixels. A wider picture is shrunk to it.

  Returns:
    The picture, or None if there is none, if only a part of it is there because
    a run is writing it, or if it is larger than any picture that a run writes.
  """
  try:
    content = file.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
      width, height = image.size
      if width * height > _MAX_PIXELS:
        return None
      image.load()
      if width <= max_width:
        return Picture(_data_uri("image/png", content), image.size)
      size = max_width, max(1, round(height * max_width / width))
      buffer = io.BytesIO()
      image.resize(size, Image.Resampling.BOX).save(buffer, "PNG")
  except _PNG_ERRORS:
    return None
  return Picture(_data_uri("image/png", buffer.getvalue()), size, shrunk=True)


def text(value: object) -> str:
  """Escapes text, and bytes of a file name that are not UTF-8."""
  value = str(value).encode(errors="backslashreplace").decode()
  return html.escape(value)


def note(value: str) -> str:
  """Returns a paragraph in small type."""
  return f'<p class="note">{text(value)}</p>'


def hint(value: str, command: str) -> str:
  """Returns a line of text that ends in a command."""
  return f"<p>{text(value)} <code>{text(command)}</code></p>"


def table(
  head: Sequence[str], rows: Iterable[Sequence[str]], caption: str
) -> str:
  """Returns a table of figures; the first cell of a row is its title."""
  columns = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
  body = "".join(
    f'<tr><th scope="row">{text(first)}</th>'
    + "".join(f"<td>{text(cell)}</td>" for cell in cells)
    + "</tr>\n"
    for first, *cells in rows
  )
  # The caption is outside the table, so that it stays when the table scrolls.
  return (
    f"<figure><figcaption>{text(caption)}</figcaption>"
    '<div class="wide" tabindex="0"><table class="figures">\n'
    f"<thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody>"
    "</table></div></figure>"
  )


def grouped_table(groups: dict[str, dict[str, str]]) -> str:
  """Returns a table of names and values, with the names of their groups."""
  bodies = []
  for group, values in groups.items():
    head = f'<tr><th scope="rowgroup" colspan="2">{text(group)}</th></tr>'
    rows = [
      f'<tr><th scope="row">{text(name)}</th>'
      f"<td><code>{text(value)}</code></td></tr>"
      for name, value in values.items()
    ]
    bodies.append("\n".join(["<tbody>", head, *rows, "</tbody>"]))
  return '<div class="wide"><table>' + "\n".join(bodies) + "</table></div>"


def definitions(values: dict[str, str]) -> str:
  """Returns a list of names and values in columns."""
  items = "".join(
    f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>\n"
    for name, value in values.items()
  )
  return f"<dl>\n{items}</dl>"


def figure(picture: Picture, alt: str, caption: str = "") -> str:
  """Returns a picture.

  Args:
    picture: The picture.
    alt: Text for readers who cannot see the picture.
    caption: Text below the picture; it may be empty.
  """
  size = ""
  if picture.size:
    size = f' width="{picture.size[0]}" height="{picture.size[1]}"'
  if picture.shrunk:
    caption = f"{caption} (shrunk; the file is larger)".strip()
  below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
  return (
    f'<figure><img src="{picture.uri}" alt="{text(alt)}"{size}>{below}</figure>'
  )


def grid(figures: Iterable[str], narrow: bool = False) -> str:
  """Places as many figures beside each other as fit."""
  kind = "grid narrow" if narrow else "grid"
  return f'<div class="{kind}">\n' + "\n".join(figures) + "\n</div>"


def heading(value: str) -> str:
  """Returns a heading within a section."""
  return f"<h3>{text(value)}</h3>"


def details(summary: str, content: str) -> str:
  """Returns content that a click on the summary shows."""
  return f"<details><summary>{text(summary)}</summary>\n{content}\n</details>"


def document(
  title: str, heading: str, introduction: str, sections: dict[str, str]
) -> str:
  """Returns the whole page.

  Args:
    title: Title of the window, as text.
    heading: Heading of the page, as text.
    introduction: Introduction below the heading, as HTML.
    sections: Sections as HTML by their titles, which are text.

  Returns:
    The page in ASCII, so that it is the same in any encoding.
  """
  slugs = {name: re.sub(r"\W+", "-", name.lower()) for name in sections}
  links = "\n".join(
    f'<a href="#{slug}">{text(name)}</a>' for name, slug in slugs.items()
  )
  bodies = "\n".join(
    f'<section id="{slugs[name]}" aria-labelledby="{slugs[name]}-title">\n'
    f'<h2 id="{slugs[name]}-title">{text(name)}</h2>\n{body}\n</section>'
    for name, body in sections.items()
  )
  page = _PAGE.substitute(
    title=text(title),
    style=_STYLE,
    heading=text(heading),
    introduction=introduction,
    links=links,
    sections=bodies,
  )
  return page.encode("ascii", "xmlcharrefreplace").decode("ascii")
