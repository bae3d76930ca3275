"""Text that is safe and easy to read in a terminal, on a page and in a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from face2vec.types import Box


def box_words(box: Box) -> str:
    """A box in whole pixels: ``(left, top, right, bottom)``."""
    return "({}, {}, {}, {})".format(*(round(v) for v in box))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text with aligned columns and no trailing spaces."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def printable(text: str) -> str:
    r"""Text that is safe to print: control characters become ``\x1b``, bad bytes ``\udcff``.

    A file name can contain anything, including escape codes of the terminal.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}
        else c
        for c in text
    )


def short_name(photo: str, limit: int = 22) -> str:
    """The file name of a photo, shortened in the middle to ``limit`` characters."""
    name = printable(Path(photo).name or photo)
    return name if len(name) <= limit else f"{name[: limit - 9]}…{name[-8:]}"
