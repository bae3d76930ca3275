"""Text that is safe and easy to read in a terminal, on a page and in a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from face2vec.types import Box, clock


def box_words(box: Box) -> str:
    """A box in whole pixels: ``(left, top, right, bottom)``."""
    return "({}, {}, {}, {})".format(*(round(v) for v in box))


def at_words(time: float | None) -> str:
    """`` at 0:03.0`` behind the name of a video; empty for a photo."""
    return "" if time is None else f" at {clock(time)}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text with aligned columns and no trailing spaces."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the order in which others are shown (Unicode's Bidi_Control)."""


def printable(text: str, *, keep_bytes: bool = False) -> str:
    r"""Text that is safe to print: control characters become ``\x1b``, bad bytes ``\udcff``.

    A file name can contain anything: escape codes of the terminal, line ends, and characters that
    reorder the rest of the line, so that ``gpj.exe`` is shown as ``exe.jpg``.

    Args:
        text: one line of text.
        keep_bytes: leave bytes that are not valid UTF-8, for a file and not a terminal.
    """
    escaped = {"Cc", "Zl", "Zp"} if keep_bytes else {"Cc", "Zl", "Zp", "Cs"}
    return "".join(
        c.encode("unicode_escape").decode()
        if c in _REORDERING or unicodedata.category(c) in escaped
        else c
        for c in text
    )


def short_name(photo: str, limit: int = 22) -> str:
    """The file name of a photo, shortened in the middle to ``limit`` characters."""
    name = printable(Path(photo).name or photo)
    return name if len(name) <= limit else f"{name[: limit - 9]}…{name[-8:]}"


def percent(probability: float) -> str:
    """A probability in percent with one digit, and never more sure than 99.9 %."""
    return "> 99.9%" if probability >= 0.9995 else f"{probability:.1%}"
