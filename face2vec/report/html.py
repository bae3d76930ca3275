"""What people read: self-contained HTML pages, tables, names that are safe to print.

A page has its styles and pictures inside the file, no script, and fetches nothing.
"""

from __future__ import annotations

import base64
import html
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #bbb; --link: #0645ad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #181818; --line: #555; --link: #8ab4f8; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { overflow-wrap: anywhere; border-top: 1px solid var(--line); padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left;
  vertical-align: middle; }
tbody th { font-weight: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.photo { overflow-wrap: anywhere; }
img { display: block; border-radius: 4px; }
a { color: var(--link); }
a:focus-visible { outline: 3px solid currentColor; outline-offset: 2px; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def write_page(path: str | os.PathLike[str], title: str, body: str) -> None:
    """Write one page; ``body`` is HTML, what comes from files escaped already."""
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
    Path(path).write_text(page, "utf-8")


def img(image: Image.Image, alt: str) -> str:
    """A picture inside the page, at two thirds of its size: sharp on a dense screen."""
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    width, height = (side * 2 // 3 for side in image.size)
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt)}">'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False) -> str:
    """A table; the first cell of each row is its name.

    Args:
        head: of each column; none for a table without.
        rows: cells of each.
        raw: whether cells are HTML; without it they are text, as ``head`` always is.
    """

    def cell(words: str) -> str:
        return words if raw else html.escape(words)

    titles = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in head)
    above = f"<thead><tr>{titles}</tr></thead>\n" if titles else ""
    body = "\n".join(
        f'<tr><th scope="row">{cell(first)}</th>'
        + "".join(f"<td>{cell(one)}</td>" for one in others)
        + "</tr>"
        for first, *others in rows
    )
    return f'<div style="overflow-x: auto"><table>{above}<tbody>\n{body}\n</tbody></table></div>'


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text, each column as wide as its widest cell, no blanks at the ends."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def photo_link(photo: str) -> str:
    """The photo's name, linked to the file where there is one."""
    name = f"<bdi>{html.escape(printable(photo))}</bdi>"
    path = Path(photo)
    try:
        there = path.is_file()
    except OSError:  # not one name but many, too long for one
        there = False
    if not there:
        return name
    return f'<a href="{html.escape(path.absolute().as_uri())}">{name}</a>'


def printable(text: str) -> str:
    r"""``text`` safe to print: control characters and undecodable bytes as ``\x1b``, ``\udcff``.

    A file's name may hold anything, a terminal's escape codes included.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}
        else c
        for c in text
    )
